package sessions

// InputWindow is how many bytes of input one host may have on their way to a program.
const InputWindow = 64 << 10

// queue is the input that a program has not taken yet. Each view adds at most its window; what
// views that have left leave behind is at most one window.
type queue struct {
	pieces   []piece
	orphaned int
	ended    bool // its end is in it, or has been taken
	over     bool // nobody takes any
}

// piece is input of one view, nil for the input's end.
type piece struct {
	from *View
	data []byte
}

// put adds input of a view, or ends it; false when the host may not send it.
func (q *queue) put(from *View, data []byte) bool {
	if len(data) > from.free {
		return false
	}
	from.free -= len(data)
	if q.ended || q.over { // others may have ended it, or the program; this host cannot know
		from.owed += len(data)
		return true
	}
	q.ended = len(data) == 0
	q.pieces = append(q.pieces, piece{from, append([]byte(nil), data...)})
	return true
}

// took notes that n bytes of the first piece are with the program.
func (q *queue) took(n int) {
	first := &q.pieces[0]
	first.data = first.data[n:]
	if first.from == nil {
		q.orphaned -= n
	} else {
		first.from.owed += n
	}
	if len(first.data) == 0 {
		q.pieces = q.pieces[1:]
	}
}

// leave makes orphans of a view's input, or drops it where there are too many. The first piece
// stays: it may be on its way to the program.
func (q *queue) leave(view *View) {
	dropped := q.orphaned+q.unread(view) > InputWindow
	kept := q.pieces[:0]
	for i, p := range q.pieces {
		if p.from == view {
			if dropped && i > 0 && len(p.data) > 0 {
				continue
			}
			p.from = nil
			q.orphaned += len(p.data)
		}
		kept = append(kept, p)
	}
	q.pieces = kept
}

func (q *queue) unread(view *View) (n int) {
	for _, p := range q.pieces {
		if p.from == view {
			n += len(p.data)
		}
	}
	return n
}

// stop gives all hosts their windows back: nobody takes input any more.
func (q *queue) stop() {
	q.over = true
	for i, p := range q.pieces {
		if p.from != nil {
			p.from.owed += len(p.data)
		}
		q.pieces[i].from = nil
	}
}

// rest is all that is left, in order.
func (q *queue) rest() (data []byte) {
	for _, p := range q.pieces {
		data = append(data, p.data...)
	}
	return data
}

// ends tells whether the input's end is still to come.
func (q *queue) ends() bool {
	last := len(q.pieces) - 1
	return last >= 0 && len(q.pieces[last].data) == 0
}

// inherit puts in what rest and ends gave.
func (q *queue) inherit(rest []byte, ended, ends bool) {
	q.ended, q.orphaned = ended, len(rest)
	if len(rest) > 0 {
		q.pieces = append(q.pieces, piece{nil, rest})
	}
	if ends {
		q.pieces = append(q.pieces, piece{nil, nil})
	}
}
