//go:build !amd64

// Package tsc measures the frequency of the processor's time stamp counter.
package tsc

// Supported tells whether this architecture has the counter.
const Supported = false

// KHz is 0: there is no such counter.
func KHz() uint64 { return 0 }
