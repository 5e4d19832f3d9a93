// Which of the levels that this library was compiled for can run on this processor and its system.

#include <string.h>
#if defined __x86_64__
#include <cpuid.h>
#elif defined __aarch64__ && defined __linux__
#include <sys/auxv.h>
#endif
#if defined __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined __x86_64__
struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  Registers(unsigned leaf, unsigned part) { __get_cpuid_count(leaf, part, &eax, &ebx, &ecx, &edx); }
};

bool has(unsigned value, unsigned bits) { return (value & bits) == bits; }

// Whether the system saves these registers, by their bits in XCR0.
bool saved(unsigned registers) {
  if (!has(Registers(1, 0).ecx, 1u << 27)) return false;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return has(low, registers);
}

// Whether Linux grants the tiles' registers to this process; to ask is also what grants them.
bool tiles() {
#if defined __linux__
  return saved(3u << 17) && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}
#endif

bool runs(const char* level) {
  const auto is = [&](const char* name) { return strcmp(level, name) == 0; };
  if (is("generic") || is("neon")) return true;
#if defined __x86_64__
  const Registers first(1, 0), seventh(7, 0), more(7, 1);
  const bool avx2 = saved(6) && has(first.ecx, 1u << 12 | 1u << 29) && has(seventh.ebx, 1u << 5);
  const bool avx512 = avx2 && saved(0xe6) && has(seventh.ebx, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31);
  const bool bf16 = avx512 && has(more.eax, 1u << 5);
  if (is("avx2")) return avx2;
  if (is("avx_vnni")) return avx2 && has(more.eax, 1u << 4);
  if (is("avx512")) return avx512;
  if (is("avx512_vnni")) return avx512 && has(seventh.ecx, 1u << 11);
  if (is("avx512_bf16")) return bf16;
  if (is("amx")) return bf16 && has(seventh.edx, 1u << 22 | 1u << 24 | 1u << 25) && tiles();
#elif defined __aarch64__
#if defined __linux__
  if (is("neon_dot")) return getauxval(AT_HWCAP) & 1ul << 20;
#else
  if (is("neon_dot")) return true;  // every processor of Apple's
#endif
#endif
  return false;
}

}  // namespace

// Whether `level` is in this library and can run here.
extern "C" __attribute__((visibility("default"))) bool can_run(const char* level) {
  static const char* const compiled[] = {COMPILED_LEVELS};
  for (const char* each : compiled)
    if (strcmp(each, level) == 0) return runs(level);
  return false;
}
