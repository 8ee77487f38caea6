package tarball

import (
	theirs "archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

func sample() []Header {
	return []Header{
		{Name: "dir/", Type: Directory, Mode: 0o755, UID: 1, GID: 2, Modified: 1_700_000_000},
		{Name: "dir/file", Type: File, Mode: 0o4711, UID: 3_000_000, GID: 70_000, Size: 700, Modified: 1},
		{Name: strings.Repeat("long/", 60), Target: strings.Repeat("t", 300), Type: Link, Mode: 0o777},
		{Name: "raw \xff", Type: File, Mode: 0o600, Size: block},
		{Name: "empty", Type: File},
	}
}

func packed(t *testing.T, headers []Header) []byte {
	t.Helper()
	var to bytes.Buffer
	w := NewWriter(&to)
	for _, h := range headers {
		if err := w.Begin(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte{'x'}, int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return to.Bytes()
}

func TestTheStandardLibraryReadsWhatIsWritten(t *testing.T) {
	r := theirs.NewReader(bytes.NewReader(packed(t, sample())))
	for _, want := range sample() {
		got, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != want.Name || got.Linkname != want.Target || got.Size != want.Size || got.Typeflag != want.Type ||
			got.Mode != int64(want.Mode) || got.Uid != int(want.UID) || got.ModTime.Unix() != want.Modified {
			t.Errorf("%+v became %+v", want, got)
		}
		if content, err := io.ReadAll(r); err != nil || int64(len(content)) != want.Size {
			t.Error(len(content), err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	r := NewReader(bytes.NewReader(packed(t, sample())))
	for _, want := range sample() {
		if got, err := r.Next(); err != nil || got != want {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

func TestTheStandardLibrarysFormatsAreRead(t *testing.T) {
	for _, format := range []theirs.Format{theirs.FormatUSTAR, theirs.FormatPAX, theirs.FormatGNU} {
		var to bytes.Buffer
		w := theirs.NewWriter(&to)
		name := strings.Repeat("d", 90) + "/" + strings.Repeat("f", 90)
		header := &theirs.Header{
			Name: name, Size: 3, Mode: 0o640, Uid: 5, Gid: 6, Format: format, ModTime: time.Unix(1_600_000_000, 0),
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("abc"))
		w.Close()
		r := NewReader(&to)
		got, err := r.Next()
		content, _ := io.ReadAll(r)
		want := Header{Name: name, Type: File, Mode: 0o640, UID: 5, GID: 6, Size: 3, Modified: 1_600_000_000}
		if err != nil || got != want || string(content) != "abc" {
			t.Errorf("%v: %+v, %q, %v", format, got, content, err)
		}
	}
}

func TestAWriterKeepsTheSizes(t *testing.T) {
	w := NewWriter(io.Discard)
	w.Begin(Header{Name: "a", Type: File, Size: 3})
	if _, err := w.Write([]byte("four")); err == nil {
		t.Error("more than announced")
	}
	w.Write([]byte("xx"))
	if w.Begin(Header{Name: "b"}) == nil || w.Close() == nil {
		t.Error("less than announced")
	}
}

func TestNumbersOfAllSizes(t *testing.T) {
	for _, n := range []int64{0, 7, 0o777_7777_7777, 0o1000_0000_0000, 1 << 40, 1 << 60} {
		var field [12]byte
		octal(field[:], n)
		if got := number(field[:]); got != n {
			t.Errorf("%d became %d in %q", n, got, field)
		}
	}
}

func FuzzReader(f *testing.F) {
	var to bytes.Buffer
	w := NewWriter(&to)
	w.Begin(Header{Name: strings.Repeat("n", 200), Type: File, Size: 5})
	w.Write([]byte("12345"))
	w.Close()
	f.Add(to.Bytes())
	to.Reset()
	pax := theirs.NewWriter(&to)
	pax.WriteHeader(&theirs.Header{Name: strings.Repeat("ä", 90), Format: theirs.FormatPAX, Size: 1})
	pax.Write([]byte("x"))
	pax.Close()
	f.Add(to.Bytes())
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, archive []byte) {
		r := NewReader(bytes.NewReader(archive))
		total := 0
		for {
			h, err := r.Next()
			if err != nil {
				break
			}
			n, err := io.Copy(io.Discard, r)
			if total += int(n); total > len(archive) || n > h.Size || err == nil && n != h.Size {
				t.Fatal(n, h.Size, total, err)
			}
			if err != nil {
				break
			}
		}
	})
}

func FuzzPax(f *testing.F) {
	f.Add([]byte("12 path=abc\n13 mtime=1.5\n"))
	f.Add([]byte("9999999999 path=a\n"))
	f.Add([]byte("3 a"))
	f.Fuzz(func(t *testing.T, records []byte) {
		extra := Header{Size: -1}
		if pax(records, &extra) == nil && extra.Size < -1 {
			t.Fatal(extra)
		}
	})
}
