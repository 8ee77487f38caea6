package sessions

import (
	"bytes"
	"math/rand"
	"testing"
)

func filled(t *testing.T, keep int) *ring {
	t.Helper()
	r, err := newRing(keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.file.Close() })
	return r
}

// A ring against the whole output: whatever is written and read, it is the output's end.
func TestTheRingIsTheEndOfTheOutput(t *testing.T) {
	dice := rand.New(rand.NewSource(1))
	r := filled(t, 5000)
	var all, kinds []byte
	for range 400 {
		data := make([]byte, dice.Intn(300)*dice.Intn(40))
		dice.Read(data)
		kind := Event(1 + dice.Intn(2))
		if err := r.append(kind, data); err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
		kinds = append(kinds, bytes.Repeat([]byte{byte(kind)}, len(data))...)
		if r.size != uint64(len(all)) || r.size-r.first > 5000 || r.first > 0 && r.size-r.first < 5000 {
			t.Fatal("it keeps", r.first, "to", r.size, "of", len(all))
		}
		at := r.first + uint64(dice.Int63n(int64(r.size-r.first)+1))
		for room := make([]byte, 700); at < r.size; {
			kind, n, err := r.read(at, room)
			if err != nil || n == 0 || !bytes.Equal(room[:n], all[at:at+uint64(n)]) {
				t.Fatal("what was read is not what was written", err)
			}
			if bytes.Count(kinds[at:at+uint64(n)], []byte{byte(kind)}) != n {
				t.Fatal("the outputs are mixed up")
			}
			at += uint64(n)
		}
	}
}

func TestTheRingRemembersOnlySoManyChanges(t *testing.T) {
	r := filled(t, 1<<20)
	for i := range 3 * maxRuns {
		r.append(Event(1+i%2), []byte{1, 2})
	}
	if len(r.runs) != maxRuns || r.first != 4*maxRuns || r.size != 6*maxRuns {
		t.Fatal(len(r.runs), r.first, r.size)
	}
}

func TestInputIsBoundedForEachView(t *testing.T) {
	var q queue
	one, two := &View{free: InputWindow}, &View{free: InputWindow}
	if !q.put(one, make([]byte, InputWindow)) || q.put(one, []byte{1}) || !q.put(two, []byte{2}) {
		t.Fatal("the window is not what it says")
	}
	q.took(InputWindow)
	if one.owed != InputWindow || one.free != 0 {
		t.Fatal("taken input is not owed", one.owed)
	}
	q.leave(two)
	if q.orphaned != 1 || !bytes.Equal(q.rest(), []byte{2}) {
		t.Fatal("what was typed before leaving is lost")
	}
}

func TestWhatManyLeaveBehindIsBounded(t *testing.T) {
	var q queue
	for range 20 {
		v := &View{free: InputWindow}
		for range 4 {
			q.put(v, make([]byte, InputWindow/4))
		}
		q.leave(v)
	}
	if held := len(q.rest()); held > 2*InputWindow {
		t.Fatal(held, "bytes of nobody")
	}
}

func TestTheEndOfInputIsEverybodys(t *testing.T) {
	var q queue
	one, two := &View{free: InputWindow}, &View{free: InputWindow}
	q.put(one, []byte{1})
	q.put(one, nil)
	if !q.ends() || !q.put(two, []byte{2}) || two.owed != 1 {
		t.Fatal("input after the end is not dropped and told as taken")
	}
	var heir queue
	heir.inherit(q.rest(), q.ended, q.ends())
	if !bytes.Equal(heir.rest(), []byte{1}) || !heir.ends() || !heir.ended {
		t.Fatal("the end is lost in a handover")
	}
	heir.took(1)
	heir.took(0)
	if heir.ends() || len(heir.pieces) != 0 || heir.orphaned != 0 {
		t.Fatal("something is left", heir.pieces, heir.orphaned)
	}
}

func TestInputOfAnEndedProgramIsGivenBackOnce(t *testing.T) {
	var q queue
	v := &View{free: InputWindow}
	q.put(v, []byte{1, 2, 3})
	q.stop()
	q.took(3) // it was on its way
	if v.owed != 3 || !q.put(v, []byte{4}) || v.owed != 4 {
		t.Fatal(v.owed)
	}
}
