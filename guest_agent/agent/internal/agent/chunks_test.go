package agent

import (
	"bytes"
	"testing"
)

func TestInputIsBoundedByItsWindow(t *testing.T) {
	b := newInbox()
	if !b.put(make([]byte, inputWindow)) || b.put([]byte{1}) {
		t.Fatal("the window is not what it says")
	}
	if taken := b.take(); len(taken) != inputWindow {
		t.Fatal(len(taken))
	}
	if b.put([]byte{1}) {
		t.Fatal("input came before it was allowed")
	}
	b.allow(2)
	if !b.put([]byte{1}) || !b.put([]byte{2}) || b.put([]byte{3}) {
		t.Fatal("what was allowed does not count")
	}
	if !b.put(nil) || b.put(nil) || b.put([]byte{1}) {
		t.Fatal("the end of the input is not its end")
	}
	if taken := b.take(); !bytes.Equal(taken, []byte{1, 2}) {
		t.Fatal(taken)
	}
	if b.take() != nil {
		t.Fatal("there is more than was sent")
	}
}

func TestInputForAProgramThatHasEndedIsDropped(t *testing.T) {
	b := newInbox()
	b.end()
	if !b.put(make([]byte, inputWindow)) {
		t.Fatal("the host cannot know that the program has ended")
	}
	if b.put([]byte{1}) {
		t.Fatal("its window still counts")
	}
	if b.take() != nil {
		t.Fatal("there is nobody to take it")
	}
}

func FuzzChunks(f *testing.F) {
	f.Add([]byte{chunkStdin, 0, 0, 0, 2, 'h', 'i', chunkSignal, 0, 0, 0, 1, 9})
	f.Add([]byte{chunkStdin, 0, 4, 0, 1})
	f.Add([]byte{255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, said []byte) {
		reader := bytes.NewReader(said)
		var data []byte
		read := 0
		for {
			var err error
			if _, data, err = readChunk(reader, data); err != nil {
				break
			}
			read += chunkHeader + len(data)
		}
		if read > len(said) || cap(data) > maxChunk {
			t.Fatal(read, cap(data))
		}
	})
}
