package files

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

func TestPagesAreTheSmallestNames(t *testing.T) {
	directory := t.TempDir()
	var all []string
	for i := range 700 {
		name := strconv.Itoa(i * 7919 % 700)
		all = append(all, name)
		if err := os.WriteFile(filepath.Join(directory, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	var got []string
	for after, more := "", true; more; after = got[len(got)-1] {
		var names []string
		var err error
		if names, more, err = List(directory, after, 17); err != nil || len(names) > 17 || len(names) == 0 {
			t.Fatal(names, err)
		}
		got = append(got, names...)
	}
	if !slices.Equal(got, all) {
		t.Error("names are missing, or not in order")
	}
}
