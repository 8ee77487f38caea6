package system

// sysGetrandom is the system call that package syscall does not name.
const sysGetrandom = 278
