/* Preloaded into a process, it hides instruction sets of the CPU from every library in it.

   Linux lets a process have its CPUID instructions fault, on CPUs that can (ARCH_CPUID_ENABLE). The
   handler answers instead: with the truth, less what the environment asks to hide.

     SIMULATED_HIDDEN   "leaf.subleaf.register.bit ..." in hex, registers a b c d: bits to clear
     SIMULATED_VENDOR   "AuthenticAMD", say: libraries choose other kernels for it
     SIMULATED_CPUINFO  a file that is read in place of /proc/cpuinfo */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_CPUID_ENABLE = 0x1012, MOST = 128 };

static struct {
  uint32_t leaf, subleaf, bit;
  char reg;
} hidden[MOST];
static int count;
static const char *vendor, *cpuinfo;

static long let_cpuid_run(int on) {
  return syscall(SYS_arch_prctl, ARCH_CPUID_ENABLE, (long)on);
}

static void answer(int number, siginfo_t* info, void* context) {
  greg_t* regs = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* code = (const uint8_t*)regs[REG_RIP];
  (void)number;
  /* The kernel gives a fault of CPUID no address. Any other fault ends the process as ever. */
  if (info->si_code != SI_KERNEL || code[0] != 0x0f || code[1] != 0xa2) {
    signal(SIGSEGV, SIG_DFL);
    return;
  }
  const uint32_t asked = (uint32_t)regs[REG_RAX], subleaf = (uint32_t)regs[REG_RCX];
  /* AMD lists its caches in the form of Intel's leaf 4. */
  const uint32_t leaf = vendor && asked == 0x8000001d ? 4 : asked;
  uint32_t r[4];
  let_cpuid_run(1);
  __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
  let_cpuid_run(0);
  if (vendor && leaf == 0) {
    memcpy(&r[1], vendor, 4);
    memcpy(&r[3], vendor + 4, 4);
    memcpy(&r[2], vendor + 8, 4);
  }
  if (vendor && leaf == 1) r[0] = 0x00a10f11; /* Zen 4 */
  if (vendor && leaf == 0x80000000) r[0] = 0x8000001d;
  for (int i = 0; i < count; i++)
    if (hidden[i].leaf == leaf && (hidden[i].subleaf == subleaf || leaf == 1))
      r[hidden[i].reg - 'a'] &= ~(1u << hidden[i].bit);
  regs[REG_RAX] = r[0];
  regs[REG_RBX] = r[1];
  regs[REG_RCX] = r[2];
  regs[REG_RDX] = r[3];
  regs[REG_RIP] += 2;
}

/* Fault handlers of others, such as Python's, would take CPUID for a crash. */
int sigaction(int number, const struct sigaction* act, struct sigaction* old) {
  static int (*real)(int, const struct sigaction*, struct sigaction*);
  if (!real) real = dlsym(RTLD_NEXT, "sigaction");
  return real(number, number == SIGSEGV ? NULL : act, old);
}

#define REDIRECT(path) (cpuinfo && strcmp(path, "/proc/cpuinfo") == 0 ? cpuinfo : path)

int open64(const char* path, int flags, ...) {
  static int (*real)(const char*, int, ...);
  if (!real) real = dlsym(RTLD_NEXT, "open64");
  va_list more;
  va_start(more, flags);
  const int mode = va_arg(more, int);
  va_end(more);
  return real(REDIRECT(path), flags, mode);
}

FILE* fopen64(const char* path, const char* mode) {
  static FILE* (*real)(const char*, const char*);
  if (!real) real = dlsym(RTLD_NEXT, "fopen64");
  return real(REDIRECT(path), mode);
}

__attribute__((constructor(101))) static void begin(void) {
  const char* bits = getenv("SIMULATED_HIDDEN");
  vendor = getenv("SIMULATED_VENDOR");
  cpuinfo = getenv("SIMULATED_CPUINFO");
  if (vendor && strlen(vendor) != 12) vendor = NULL;
  for (int read = 0; bits && count < MOST; bits += read, count++)
    if (sscanf(bits, " %x.%x.%c.%x%n", &hidden[count].leaf, &hidden[count].subleaf,
               &hidden[count].reg, &hidden[count].bit, &read) != 4)
      break;
  struct sigaction act = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
  int (*real)(int, const struct sigaction*, struct sigaction*) = dlsym(RTLD_NEXT, "sigaction");
  real(SIGSEGV, &act, NULL);
  if (let_cpuid_run(0) != 0) _exit(97);
}
