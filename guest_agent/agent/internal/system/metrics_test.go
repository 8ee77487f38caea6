package system

import (
	"reflect"
	"testing"
)

func TestCountsAreThoseOfTheKernel(t *testing.T) {
	cpu := parseCPU("cpu  10 1 20 300 4 5 6 7 0 0\ncpu0 5 0 10 150 2 2 3 3 0 0\ncpu1 5 1 10 150 2 3 3 4 0 0\nintr 5\n")
	if want := (Ticks{User: 11, System: 31, Idle: 300, IOWait: 4, Steal: 7, Count: 2}); cpu != want {
		t.Errorf("%+v", cpu)
	}
	network := parseNetwork("Inter-|   Receive\n face |bytes\n    lo: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\n" +
		"  eth0:10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n bad: 1 2\n")
	want := []Traffic{{"eth0", [2]uint64{10, 50}, [2]uint64{2, 6}, [2]uint64{3, 7}, [2]uint64{4, 8}}}
	if !reflect.DeepEqual(network, want) {
		t.Errorf("%+v", network)
	}
	if Memory().Total == 0 || CPU().Count == 0 || Processes() == 0 {
		t.Error("this machine counts nothing")
	}
}
