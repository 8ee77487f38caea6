// SPDX-License-Identifier: GPL-2.0
/*
 * What whoever emulates a machine can tell a kernel, which would find it out, or guard against it,
 * with a delay that counts in a boot of half a second.
 *
 * nexus.lapic_timer_khz=  How fast the timers of the local APICs count. A CPU without a TSC deadline
 *                         timer otherwise has the kernel measure it for 0.1 s.
 * tsc_early_khz=          The kernel's own word, which here is the CPU's frequency too, so that
 *                         nobody measures it with the PIT.
 * nexus.emulated          No CPU runs this code: it is translated, and what has been translated is
 *                         written over at a hundred times the cost.
 */
#include <linux/cache.h>
#include <linux/errno.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/param.h>
#include <asm/apic.h>
#include <asm/alternative.h>
#include <asm/nospec-branch.h>
#include <asm/text-patching.h>
#include <asm/x86_init.h>

static int __init take_lapic_timer_khz(char *text)
{
	unsigned int khz;

	if (!text || kstrtouint(text, 0, &khz) || khz < 1000 || khz > 4000000)
		return -EINVAL;
	lapic_timer_period = khz * 1000 / HZ;
	return 0;
}
early_param("nexus.lapic_timer_khz", take_lapic_timer_khz);

static unsigned int cpu_frequency __initdata; /* in kHz */

static unsigned long __init given_cpu_frequency(void)
{
	return cpu_frequency;
}

static int __init take_cpu_frequency(char *text)
{
	if (!text || kstrtouint(text, 0, &cpu_frequency) || !cpu_frequency)
		return -EINVAL;
	x86_platform.calibrate_cpu = given_cpu_frequency;
	return 0;
}
early_param("tsc_early_khz", take_cpu_frequency);

/* Make a function of the kernel do nothing. */
static void __init leave_out(void *function)
{
	static const u8 ret = RET_INSN_OPCODE;

	text_poke_early(function, &ret, sizeof(ret));
}

#if defined(CONFIG_RETHUNK) || defined(CONFIG_MITIGATION_RETHUNK)
/*
 * Returns are jumps to a thunk until the kernel, which then knows that no mitigation needs them,
 * decodes and replaces each. There is nothing to mitigate, so do it before most of them have run.
 */
static void __init write_returns(void)
{
	extern s32 __return_sites[], __return_sites_end[];
	static const u8 code[JMP32_INSN_SIZE] = {
		RET_INSN_OPCODE, INT3_INSN_OPCODE, INT3_INSN_OPCODE, INT3_INSN_OPCODE, INT3_INSN_OPCODE,
	};
	s32 *site;

	for (site = __return_sites; site < __return_sites_end; site++) {
		u8 *at = (void *)site + *site;
		u8 *target = at + sizeof(code) + *(s32 *)(at + 1);

		if (*at == JMP32_INSN_OPCODE && target == (u8 *)__x86_return_thunk)
			memcpy(at, code, sizeof(code));
	}
	leave_out(apply_returns);
}
#else
static void __init write_returns(void) { }
#endif

static int __init be_emulated(char *text)
{
	write_returns();
	leave_out(free_initmem); /* it overwrites what has run, to free 1 MB */
	return 0;
}
early_param("nexus.emulated", be_emulated);
