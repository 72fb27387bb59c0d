/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Long mode with paging, started there: exceptions, control, debug and model-specific registers,
 * CPUID, TSC, system calls, SIMD state. Each entry is a guest of its own and ends with HLT.
 *
 * The exception handlers note what they saw at GUEST_FAULT, and go on at R15, where it is not 0.
 */
#include "entry.h"

	.text
	.code64

.macro handler vector, pushes_error=0
entry on_\vector
	.if \pushes_error == 0
	push $0
	.endif
	push $\vector
	jmp record
.endm

	handler 0
	handler 1
	handler 3
	handler 6
	handler 7
	handler 11, 1
	handler 13, 1
	handler 14, 1
	handler 33

record:
	push %rax
	/* On the stack: RAX, vector, error code, RIP, CS, RFLAGS, RSP, SS. */
	mov 8(%rsp), %rax
	mov %rax, GUEST_FAULT
	mov 16(%rsp), %rax
	mov %rax, GUEST_FAULT + 8
	mov %cr2, %rax
	mov %rax, GUEST_FAULT + 16
	mov 24(%rsp), %rax
	mov %rax, GUEST_FAULT + 24
	mov 32(%rsp), %rax
	mov %rax, GUEST_FAULT + 32
	mov 40(%rsp), %rax
	mov %rax, GUEST_FAULT + 40
	mov %dr6, %rax
	mov %rax, GUEST_FAULT + 48
	incq GUEST_FAULT + 56
	/* End single steps. */
	andq $~0x100, 40(%rsp)
	test %r15, %r15
	jz 1f
	mov %r15, 24(%rsp)
1:	pop %rax
	add $16, %rsp
	iretq

/* One instruction at NAME_at, expected to raise an exception. Registers are the test's. */
.macro raises name, insn:vararg
entry \name
	lea \name\()_done(%rip), %r15
entry \name\()_at
	\insn
entry \name\()_done
	hlt
.endm

	raises ud, ud2
	raises load, mov (%rbx), %rax
	raises store, mov %rax, (%rbx)
	raises load_fs, mov %ax, %fs
	raises divide, div %ecx
	raises breakpoint, int3
	raises interrupt, int $0x21
	raises sse, mulps %xmm0, %xmm0
	raises write_cr0, mov %rax, %cr0
	raises write_cr3, mov %rax, %cr3
	raises write_cr4, mov %rax, %cr4
	raises write_cr8, mov %rax, %cr8
	raises read_msr, rdmsr
	raises write_msr, wrmsr
	raises set_xcr, xsetbv

/* The same in ring 3, where the test starts it, with an I/O privilege level that lets it tell. */
.macro raises_in_ring_3 name, insn:vararg
entry \name
	lea \name\()_done(%rip), %r15
entry \name\()_at
	\insn
\name\()_done:
	out %al, $0x80
.endm

	raises_in_ring_3 user_write_cr0, mov %rax, %cr0
	raises_in_ring_3 user_write_cr2, mov %rax, %cr2
	raises_in_ring_3 user_write_cr3, mov %rax, %cr3
	raises_in_ring_3 user_write_cr4, mov %rax, %cr4
	raises_in_ring_3 user_write_cr8, mov %rax, %cr8
	raises_in_ring_3 user_read_cr0, mov %cr0, %rax
	raises_in_ring_3 user_read_cr2, mov %cr2, %rax
	raises_in_ring_3 user_read_cr3, mov %cr3, %rax
	raises_in_ring_3 user_read_cr4, mov %cr4, %rax
	raises_in_ring_3 user_read_cr8, mov %cr8, %rax
	raises_in_ring_3 user_clts, clts
	raises_in_ring_3 user_lmsw, lmsw %ax
	raises_in_ring_3 user_write_dr0, mov %rax, %dr0
	raises_in_ring_3 user_write_dr3, mov %rax, %dr3
	raises_in_ring_3 user_write_dr4, mov %rax, %db4
	raises_in_ring_3 user_write_dr6, mov %rax, %dr6
	raises_in_ring_3 user_write_dr7, mov %rax, %dr7
	raises_in_ring_3 user_read_dr0, mov %dr0, %rax
	raises_in_ring_3 user_read_dr3, mov %dr3, %rax
	raises_in_ring_3 user_read_dr5, mov %db5, %rax
	raises_in_ring_3 user_read_dr6, mov %dr6, %rax
	raises_in_ring_3 user_read_dr7, mov %dr7, %rax
	raises_in_ring_3 user_read_msr, rdmsr
	raises_in_ring_3 user_write_msr, wrmsr
	raises_in_ring_3 user_set_xcr, xsetbv

/* Single step over one NOP. */
entry single_step
	xor %r15d, %r15d
	pushfq
	orq $0x100, (%rsp)
	popfq
	nop
entry single_step_trap
	nop
	hlt

/*
 * The single step's trap, or INT1's, where the instruction before has interrupts or traps wait. The
 * test sets RFLAGS.TF, and the ring.
 */
entry step_sti
	sti
entry step_sti_trap
	nop
	out %al, $0x80
entry step_mov_ss
	mov %eax, %ss
	nop
entry step_mov_ss_trap
	nop
	out %al, $0x80
entry step_mov_ss_int1
	mov %eax, %ss
	.byte 0xf1
entry step_mov_ss_int1_trap
	nop
	out %al, $0x80
entry plain_int1
	.byte 0xf1
entry plain_int1_trap
	nop
	out %al, $0x80

/* Ring 3 executes HLT. */
entry user_halt
	push $SEL_UDATA | 3
	push $GUEST_STACK_USER
	push $2
	push $SEL_UCODE64 | 3
	lea user_halt_at(%rip), %rax
	push %rax
	lea user_halt_done(%rip), %r15
	iretq
entry user_halt_at
	hlt
entry user_halt_done
	lea user_out_done(%rip), %r15
	mov GUEST_FAULT, %rax
	mov %rax, GUEST_RESULTS
	mov GUEST_FAULT + 8, %rax
	mov %rax, GUEST_RESULTS + 8
	mov GUEST_FAULT + 24, %rax
	mov %rax, GUEST_RESULTS + 16
	mov GUEST_FAULT + 32, %rax
	mov %rax, GUEST_RESULTS + 24
	/* The handler returns to ring 3, where a port is refused, too: #GP again. */
	mov $0x5555, %eax
	out %al, $0x80
user_out_done:
	/* Still in ring 3; an address nothing maps ends it. */
	mov GUEST_FAULT, %rax
	mov %rax, GUEST_RESULTS + 32
	lea user_load_done(%rip), %r15
	mov $0x100000000, %rbx
	mov (%rbx), %al
user_load_done:
	mov GUEST_FAULT + 8, %rax
	mov %rax, GUEST_RESULTS + 40
	/* By a system call to ring 0. The test has set the MSRs. */
	syscall
entry user_syscall
	hlt

/* Control registers. */
entry control
	mov %cr0, %rax
	mov %rax, GUEST_RESULTS
	/* TS on: by MOV, off: by CLTS; on again by LMSW, off by MOV. */
	mov %rax, %rbx
	or $8, %rbx
	mov %rbx, %cr0
	mov %cr0, %rcx
	mov %rcx, GUEST_RESULTS + 8
	clts
	mov %cr0, %rcx
	mov %rcx, GUEST_RESULTS + 16
	smsw %ecx
	or $8, %ecx
	lmsw %cx
	mov %cr0, %rcx
	mov %rcx, GUEST_RESULTS + 24
	mov %rax, %cr0
	/* WP and AM. */
	mov %rax, %rbx
	or $0x50000, %rbx
	mov %rbx, %cr0
	mov %cr0, %rcx
	mov %rcx, GUEST_RESULTS + 32
	/* CR4: DE and PGE. */
	mov %cr4, %rax
	mov %rax, GUEST_RESULTS + 40
	or $0x88, %rax
	mov %rax, %cr4
	mov %cr4, %rax
	mov %rax, GUEST_RESULTS + 48
	/* CR3: tables at another place, copied there by the test. */
	mov %cr3, %rax
	mov %rax, GUEST_RESULTS + 56
	mov $GUEST_SCRATCH, %eax
	mov %rax, %cr3
	mov %cr3, %rax
	mov %rax, GUEST_RESULTS + 64
	/* CR8: only upwards, since a lower one may be the VMM's business (KVM_EXIT_SET_TPR). */
	mov %cr8, %rax
	mov %rax, GUEST_RESULTS + 72
	mov $5, %eax
	mov %rax, %cr8
	mov %cr8, %rax
	mov %rax, GUEST_RESULTS + 80
	mov $0x123456789, %rax
	mov %rax, %cr2
	hlt
entry control_more
	mov %cr2, %rax
	mov %rax, GUEST_RESULTS + 88
	mov %cr8, %rax
	mov %rax, GUEST_RESULTS + 96
	hlt

entry cr8_down
	mov $9, %eax
	mov %rax, %cr8
	mov $3, %eax
	mov %rax, %cr8
	mov %cr8, %rbx
	hlt

/* MSRs: index in ECX, value in EDX:EAX. */
entry msr_write
	wrmsr
	hlt
entry msr_read
	rdmsr
	hlt

/* CPUID of leaf EAX, subleaf ECX. */
entry identify
	cpuid
	hlt

/* TSC: 64 times never backwards; RBX the last value, RCX what RDTSCP says of the CPU. */
entry time
	xor %ebx, %ebx
	mov $64, %esi
1:	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	cmp %rbx, %rax
	jb 2f
	mov %rax, %rbx
	dec %esi
	jnz 1b
	hlt
2:	ud2
entry timep
	rdtscp
	shl $32, %rdx
	or %rdx, %rax
	cmp %rbx, %rax
	jb 2b
	mov %rax, %rbx
	hlt

/* Debug registers, from the registers' names' own values; and back. */
entry debug_write
	mov %r8, %dr0
	mov %r9, %dr1
	mov %r10, %dr2
	mov %r11, %dr3
	mov %r12, %dr6
	mov %r13, %dr7
	hlt
entry debug_read
	mov %dr0, %r8
	mov %dr1, %r9
	mov %dr2, %r10
	mov %dr3, %r11
	mov %dr6, %r12
	mov %dr7, %r13
	hlt

/* Breakpoints: on an instruction (a fault), on a write of 8 bytes (a trap). */
entry break_execute
	lea break_execute_done(%rip), %r15
	lea break_execute_at(%rip), %rax
	mov %rax, %dr0
	xor %eax, %eax
	mov %rax, %dr6
	mov $0x401, %eax
	mov %rax, %dr7
	nop
entry break_execute_at
	nop
entry break_execute_done
	xor %eax, %eax
	mov %rax, %dr7
	hlt
entry break_write
	xor %r15d, %r15d
	mov $GUEST_SCRATCH, %eax
	mov %rax, %dr1
	xor %eax, %eax
	mov %rax, %dr6
	mov $0x900404, %eax
	mov %rax, %dr7
	movq $1, GUEST_SCRATCH
entry break_write_after
	xor %eax, %eax
	mov %rax, %dr7
	hlt

/*
 * SYSRET to ring 3, SYSCALL back; then the same by SYSEXIT and SYSENTER. The test has set the
 * MSRs. Each side notes its selectors, and what the instruction left in registers.
 */
entry system_calls
	lea sysret_user(%rip), %rcx
	mov $0x203, %r11d
	sysretq
entry sysret_user
	mov %cs, %eax
	mov %rax, GUEST_RESULTS
	mov %ss, %eax
	mov %rax, GUEST_RESULTS + 8
	stc
	syscall
entry syscall_return
	hlt
entry syscall_entry
	pushfq
	pop %rax
	mov %rax, GUEST_RESULTS + 16
	mov %cs, %eax
	mov %rax, GUEST_RESULTS + 24
	mov %ss, %eax
	mov %rax, GUEST_RESULTS + 32
	mov %rcx, GUEST_RESULTS + 40
	mov %r11, GUEST_RESULTS + 48
	hlt

entry fast_calls
	lea sysexit_user(%rip), %rdx
	mov $GUEST_STACK_USER, %ecx
	sysexitq
entry sysexit_user
	mov %cs, %eax
	mov %rax, GUEST_RESULTS
	mov %ss, %eax
	mov %rax, GUEST_RESULTS + 8
	mov %rsp, GUEST_RESULTS + 16
	sysenter
entry sysenter_entry
	mov %cs, %eax
	mov %rax, GUEST_RESULTS + 24
	mov %ss, %eax
	mov %rax, GUEST_RESULTS + 32
	mov %rsp, GUEST_RESULTS + 40
	hlt

/* SWAPGS and what it swaps. */
entry swap
	swapgs
	mov %gs:0, %rax
	swapgs
	mov %gs:0, %rbx
	hlt

/* SSE and x87: all registers from GUEST_SCRATCH, and, after an exit, to GUEST_SCRATCH + 512. */
entry simd_load
	fxrstor GUEST_SCRATCH
	hlt
entry simd_save
	fxsave GUEST_SCRATCH + 512
	hlt

/* The same for AVX, the upper halves by name. OSXSAVE and XCR0 are for the guest to set. */
.macro load_avx
	mov %cr4, %rax
	or $0x40000, %rax
	mov %rax, %cr4
	xor %ecx, %ecx
	xor %edx, %edx
	mov $7, %eax
	xsetbv
	vmovups GUEST_SCRATCH, %ymm0
	vmovups GUEST_SCRATCH + 32, %ymm7
	vmovups GUEST_SCRATCH + 64, %ymm15
.endm
.macro save_avx
	vmovups %ymm0, GUEST_SCRATCH + 512
	vmovups %ymm7, GUEST_SCRATCH + 512 + 32
	vmovups %ymm15, GUEST_SCRATCH + 512 + 64
.endm
entry avx_load
	load_avx
	hlt
	save_avx
	xor %ecx, %ecx
	xgetbv
	hlt

/* In between it has x87 only in XCR0, until GUEST_RESULTS is set. */
entry avx_set_aside
	load_avx
	mov $1, %eax
	xsetbv
1:	cmpl $0, GUEST_RESULTS
	je 1b
	mov $7, %eax
	xsetbv
	save_avx
	hlt

/* Every register the VMM may care for gets other content. */
entry clobber
	fninit
	fldpi
	fldpi
	fldpi
	fldpi
	fldpi
	fldpi
	fldpi
	fldpi
	fldcw clobber_fcw
	ldmxcsr clobber_mxcsr
	.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	pcmpeqd %xmm\n, %xmm\n
	.endr
	hlt
	jmp clobber
clobber_fcw:
	.word 0x037a
clobber_mxcsr:
	.long 0x7f80

/* The same with AVX; ends like avx_load's guest with OSXSAVE set. */
entry clobber_avx
	mov %cr4, %rax
	or $0x40000, %rax
	mov %rax, %cr4
	xor %ecx, %ecx
	xor %edx, %edx
	mov $7, %eax
	xsetbv
	vpcmpeqd %xmm0, %xmm0, %xmm0
	vinsertf128 $1, %xmm0, %ymm0, %ymm0
	.irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vmovaps %ymm0, %ymm\n
	.endr
	hlt

/* Far jumps: to 32-bit compatibility mode and back, and a far return. */
entry far
	xor %ebx, %ebx
	ljmp *far_to_32(%rip)
far_to_32:
	.long far_32
	.word SEL_CODE32
	.code32
far_32:
	inc %ebx
	mov %cs, %eax
	mov %eax, GUEST_RESULTS
	ljmp $SEL_CODE64, $far_64
	.code64
far_64:
	inc %ebx
	mov %cs, %eax
	mov %rax, GUEST_RESULTS + 8
	push $SEL_CODE64
	lea 1f(%rip), %rax
	push %rax
	lretq
1:	inc %ebx
	hlt

/* Flags: arithmetic ones, DF, AC, ID; IF by CLI and STI. */
entry flags
	pushq $0x240cd5
	popfq
	pushfq
	pop %rax
	mov %rax, GUEST_RESULTS
	pushq $2
	popfq
	sti
	pushfq
	pop %rax
	mov %rax, GUEST_RESULTS + 8
	cli
	pushfq
	pop %rax
	mov %rax, GUEST_RESULTS + 16
	hlt

/* Invalidation instructions a kernel uses, none of which is the VMM's business. */
entry invalidate
	invlpg GUEST_SCRATCH
	wbinvd
	mov %cr3, %rax
	mov %rax, %cr3
	pause
	mfence
	hlt

/*
 * Memory: a word in each 2 MiB page from RBX to RCX (exclusive): reads what is there, adds its own
 * address, writes it back; the sum of what it read in RAX. Tables map 4 GiB, in 2 MiB pages.
 */
entry touch
	xor %eax, %eax
1:	mov (%rbx), %rdx
	add %rdx, %rax
	add %rbx, %rdx
	mov %rdx, (%rbx)
	add $0x200000, %rbx
	cmp %rcx, %rbx
	jb 1b
	hlt

/* Reads and writes a byte of each page from RBX to RCX, and again with each run. */
entry walk
	mov %rbx, %rdi
1:	mov (%rdi), %al
	mov %al, (%rdi)
	add $0x1000, %rdi
	cmp %rcx, %rdi
	jb 1b
	hlt
	jmp walk

/* Counts in a page of RCX + 1 (a power of two) from RBX on, RDX times, each time in one by the random number in EAX. */
entry scatter
	imul $1664525, %eax, %eax
	add $1013904223, %eax
	mov %eax, %esi
	shr $12, %esi
	and %ecx, %esi
	shl $12, %rsi
	incq (%rbx,%rsi)
	dec %rdx
	jnz scatter
	hlt

/* Sums the double words from RBX to RCX in RAX, and rotates the sum with each. */
entry checksum
	xor %eax, %eax
1:	mov (%rbx), %edx
	add %rdx, %rax
	rol $1, %rax
	add $4, %rbx
	cmp %rcx, %rbx
	jb 1b
	hlt

/* Reads (RBX) each time it is run. */
entry peek
	mov (%rbx), %rax
	hlt
	jmp peek
entry poke
	mov %rax, (%rbx)
	hlt
	jmp poke

/* Spins until (RBX) is RCX; what a peer does with it, or an invalidation, must be seen. */
entry await
	mov (%rbx), %rax
	cmp %rcx, %rax
	je 1f
	pause
	jmp await
1:	hlt

/*
 * Contends for the ticket lock at (RBX), next ticket and the one that is served, until (RBX + 8) is
 * set. Each round adds 1 to RAX, and, inside the lock, to (RBX + 16).
 */
entry contend
	xor %eax, %eax
1:	mov $1, %edx
	lock xadd %edx, (%rbx)
2:	cmp %edx, 4(%rbx)
	je 3f
	pause
	jmp 2b
3:	incq 16(%rbx)
	mov $64, %ecx
4:	dec %ecx
	jnz 4b
	inc %rax
	incl 4(%rbx)
	cmpl $0, 8(%rbx)
	je 1b
	hlt

/* Adds 1 to (RBX) for ever. */
entry count_on
	incq (%rbx)
	jmp count_on

/* Adds 1 to (RBX), RCX times, while others may do so, too. */
entry count_locked
1:	lock incq (%rbx)
	dec %rcx
	jnz 1b
	hlt
