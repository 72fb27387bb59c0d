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

/* What shows a file is its private data. */
static int text_show(struct seq_file *file, void *unused)
{
	void (*show)(struct glue_text *text) = file->private;

	show((struct glue_text *)file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(text);

void glue_debugfs_create(void)
{
	directory = debugfs_create_dir("kvmpp", NULL);
	debugfs_create_file("cpus", 0400, directory, kvmpp_show_cpus, &text_fops);
	debugfs_create_file("dedicated", 0400, directory, kvmpp_show_dedicated, &text_fops);
	debugfs_create_file("stats", 0400, directory, kvmpp_show_stats, &text_fops);
	debugfs_create_file("exits", 0400, directory, kvmpp_show_exits, &text_fops);
}

void glue_debugfs_remove(void)
{
	debugfs_remove(directory);
}
