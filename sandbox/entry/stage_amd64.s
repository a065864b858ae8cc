#include "textflag.h"

// System calls and flags (arch/x86/entry/syscalls/syscall_64.tbl, prctl(2), clone(2)).
#define SYS_write 1
#define SYS_clone 56
#define SYS_prctl 157
#define SYS_exit_group 231
#define SYS_setns 308
#define PR_SET_PDEATHSIG 1
#define PR_SET_DUMPABLE 4
#define CLONE_PARENT_SIGCHLD 0x8011
#define SIGKILL 9

// stage runs with the stack as execve(2) left it: argc, argv, a zero, the environment. It uses registers only. R15 holds
// what the dynamic linker leaves in DX for a C program.
TEXT ·stage(SB), NOSPLIT|NOFRAME, $0-0
	// The marker and the distance, which Patch looks for and writes.
	BYTE $'u'; BYTE $'s'; BYTE $'e'; BYTE $'r'; BYTE $'n'; BYTE $'e'; BYTE $'t'; BYTE $0x01
	BYTE $0xd3; BYTE $0x7a; BYTE $0x1e; BYTE $0x95; BYTE $0xc6; BYTE $0x0b; BYTE $0xf8; BYTE $0x42
	QUAD $0

	MOVQ DX, R15
	MOVL $SYS_prctl, AX
	MOVL $PR_SET_DUMPABLE, DI
	XORL SI, SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	SYSCALL

	MOVQ 0(SP), AX // argc
	CMPQ AX, $3
	JLT  done
	MOVQ 24(SP), BX // argv[2]
	MOVBLZX 0(BX), R12
	SUBL $'0', R12
	CMPL R12, $9
	JHI  done // no steps
	MOVL $4, R13
enter:
	TESTL R12, R12
	JEQ  entered
	MOVL $SYS_setns, AX
	MOVL R13, DI
	XORL SI, SI // of any kind
	SYSCALL
	TESTQ AX, AX
	JNE  fail
	INCL R13
	DECL R12
	JMP  enter

entered:
	XORL DI, DI
	MOVL $1, CX
digit:
	MOVBLZX (BX)(CX*1), AX
	SUBL $'0', AX
	CMPL AX, $9
	JLE  decimal
	SUBL $('a'-'0'-10), AX
decimal:
	SHLL $4, DI
	ORL  AX, DI
	INCL CX
	CMPL CX, $9
	JLT  digit

	TESTL DI, DI
	JEQ  done
	ORL  $CLONE_PARENT_SIGCHLD, DI
	MOVL $SYS_clone, AX
	XORL SI, SI // the same stack, in a copy of the memory
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	SYSCALL
	TESTQ AX, AX
	JLT  fail
	JNE  parent
	MOVL $SYS_prctl, AX
	MOVL $PR_SET_PDEATHSIG, DI
	MOVL $SIGKILL, SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	SYSCALL
	JMP  done

parent:
	SUBQ $16, SP
	MOVL AX, 0(SP)
	MOVL $SYS_write, AX
	MOVL $3, DI
	MOVQ SP, SI
	MOVL $4, DX
	SYSCALL
	MOVL $SYS_exit_group, AX
	XORL DI, DI
	SYSCALL
	INT  $3

fail:
	NEGL AX
	MOVB $'E', 0(BX)
	MOVB AX, 1(BX)
done:
	LEAQ ·stage(SB), AX
	ADDQ 16(AX), AX
	MOVQ R15, DX
	JMP  AX
