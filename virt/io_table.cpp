// SPDX-License-Identifier: GPL-2.0
#include "io_table.hpp"

namespace kvmpp
{

namespace
{

u64 value_of(const IoWrite &write)
{
	u64 value = 0;

	for (u32 i = 0; i < write.length; i++)
		value |= u64{write.data[i]} << (8 * i);
	return value;
}

bool comes_before(const IoTaker &a, const IoTaker &b)
{
	return a.address != b.address ? a.address < b.address : a.length < b.length;
}

} // namespace

bool IoTaker::takes(const IoWrite &write) const
{
	if (is_zone())
		return contains(write.address, write.length);
	if (write.address != address)
		return false;
	if (length == 0)
		return true;
	return write.length == length && (any_data || value_of(write) == data);
}

bool IoTaker::collides(const IoTaker &other) const
{
	if (is_zone() || other.is_zone() || address != other.address)
		return false;
	if (length == 0 || other.length == 0)
		return true;
	return length == other.length && (any_data || other.any_data || data == other.data);
}

IoTable::~IoTable()
{
	if (takers_)
		glue_free(takers_);
}

bool IoTable::collides(const IoTaker &taker) const
{
	for (u32 i = 0; i < count_; i++)
		if (takers_[i].collides(taker))
			return true;
	return false;
}

u32 IoTable::find(const IoTaker &taker) const
{
	u32 i = 0;

	while (i < count_ && takers_[i] != taker)
		i++;
	return i;
}

u32 IoTable::first_for(u64 address) const
{
	u64 from = address > widest_ ? address - widest_ : 0;
	u32 low = 0, high = count_;

	while (low < high) {
		u32 middle = (low + high) / 2;

		if (takers_[middle].address < from)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

Owned<IoTable> IoTable::create(u32 room)
{
	auto table = Owned<IoTable>::create();

	if (!table || room == 0)
		return table;
	table->takers_ = static_cast<IoTaker *>(glue_zalloc(room * sizeof(IoTaker)));
	if (!table->takers_)
		return {};
	return table;
}

void IoTable::append(const IoTaker &taker)
{
	takers_[count_++] = taker;
	zones_ += taker.is_zone();
	if (taker.length > widest_)
		widest_ = taker.length;
}

Owned<IoTable> IoTable::with(const IoTaker &added) const
{
	auto table = create(count_ + 1);
	u32 i = 0;

	if (!table)
		return table;
	while (i < count_ && !comes_before(added, takers_[i]))
		table->append(takers_[i++]);
	table->append(added);
	while (i < count_)
		table->append(takers_[i++]);
	return table;
}

} // namespace kvmpp
