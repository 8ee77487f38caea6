// Package tsc measures the frequency of the processor's time stamp counter.
package tsc

import (
	"syscall"
	"time"
	"unsafe"
)

// Supported tells whether this architecture has the counter.
const Supported = true

const (
	interval          = 200 * time.Millisecond
	tries             = 64
	clockMonotonicRaw = 4
)

func rdtsc() uint64

func now() int64 {
	var ts syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonicRaw, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}

// sample reads both clocks at one moment: of many readings it takes the one that the least
// time lay around.
func sample() (ticks uint64, nanoseconds int64) {
	best := ^uint64(0)
	for range tries {
		before := rdtsc()
		clock := now()
		width := rdtsc() - before
		if width < best {
			best, ticks, nanoseconds = width, before+width/2, clock
		}
	}
	return ticks, nanoseconds
}

// KHz measures the counter against CLOCK_MONOTONIC_RAW for a fifth of a second.
func KHz() uint64 {
	ticks0, ns0 := sample()
	time.Sleep(interval)
	ticks1, ns1 := sample()
	elapsed := uint64(ns1 - ns0)
	return ((ticks1-ticks0)*1_000_000 + elapsed/2) / elapsed
}
