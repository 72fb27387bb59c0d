// SPDX-License-Identifier: GPL-2.0
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include <linux_glue/debugfs.h>
#include <linux_glue/entries.h>

static struct dentry *directory;

void glue_text_print(struct glue_text *text, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	seq_vprintf((struct seq_file *)text, format, args);
	va_end(args);
}

static int cpus_show(struct seq_file *file, void *unused)
{
	kvmpp_show_cpus((struct glue_text *)file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(cpus);

static int stats_show(struct seq_file *file, void *unused)
{
	kvmpp_show_stats((struct glue_text *)file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int dedicated_show(struct seq_file *file, void *unused)
{
	kvmpp_show_dedicated((struct glue_text *)file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(dedicated);

static int exits_show(struct seq_file *file, void *unused)
{
	kvmpp_show_exits((struct glue_text *)file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(exits);

void glue_debugfs_create(void)
{
	directory = debugfs_create_dir("kvmpp", NULL);
	debugfs_create_file("cpus", 0400, directory, NULL, &cpus_fops);
	debugfs_create_file("dedicated", 0400, directory, NULL, &dedicated_fops);
	debugfs_create_file("stats", 0400, directory, NULL, &stats_fops);
	debugfs_create_file("exits", 0400, directory, NULL, &exits_fops);
}

void glue_debugfs_remove(void)
{
	debugfs_remove(directory);
}
