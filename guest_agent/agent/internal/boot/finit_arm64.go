package boot

// sysFinitModule is the system call that package syscall does not name.
const sysFinitModule = 273
