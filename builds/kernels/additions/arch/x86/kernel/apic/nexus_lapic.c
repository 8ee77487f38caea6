// SPDX-License-Identifier: GPL-2.0
/*
 * nexus.lapic_timer_khz=: how fast the timers of the local APICs count, where whoever made the
 * machine knows it. A CPU without a TSC deadline timer otherwise has the kernel measure it for
 * 0.1 s.
 */
#include <linux/errno.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/param.h>
#include <asm/apic.h>

static int __init take_lapic_timer_khz(char *text)
{
	unsigned int khz;

	if (!text || kstrtouint(text, 0, &khz) || khz < 1000 || khz > 4000000)
		return -EINVAL;
	lapic_timer_period = khz * 1000 / HZ;
	return 0;
}
early_param("nexus.lapic_timer_khz", take_lapic_timer_khz);
