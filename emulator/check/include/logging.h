// Logging (Metal Shading Language Specification, 6.17; from Metal 3.2 on).
#pragma once

namespace metal {
struct os_log {
  constexpr os_log(const constant char *, const constant char *) {}
  constexpr os_log(const constant char *, const constant char *) constant {}
#define MSL_LOG(NAME)                                        \
  void NAME(const constant char *, ...) const constant;      \
  void NAME(const constant char *, ...) const thread;
  MSL_LOG(log) MSL_LOG(log_debug) MSL_LOG(log_info) MSL_LOG(log_error) MSL_LOG(log_fault)
#undef MSL_LOG
};
constexpr constant os_log os_log_default("", "");
}  // namespace metal
