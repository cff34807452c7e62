package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/ledger"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/signup"
)

// transport is a policy.Transporter.
type transport func(*http.Request) (*http.Response, error)

func (f transport) Do(req *http.Request) (*http.Response, error) { return f(req) }

// wire is a transport that counts requests, and gives the next transactions to faults, one each.
type wire struct {
	mu       sync.Mutex
	requests int
	faults   []fault
}

// fault stands for one exchange with the service: send does it.
type fault func(send func() (*http.Response, error)) (*http.Response, error)

func (w *wire) Do(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests++
	var f fault
	if req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/$batch") && len(w.faults) > 0 {
		f, w.faults = w.faults[0], w.faults[1:]
	}
	w.mu.Unlock()
	send := func() (*http.Response, error) { return http.DefaultClient.Do(req) }
	if f == nil {
		return send()
	}
	return f(send)
}

func (w *wire) inject(faults ...fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = faults
}

func (w *wire) sent() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests
}

func pass(send func() (*http.Response, error)) (*http.Response, error) { return send() }

// dropAnswer loses the connection after the service has done its work.
func dropAnswer(send func() (*http.Response, error)) (*http.Response, error) {
	resp, err := send()
	if err != nil {
		return nil, err
	}
	return nil, errors.Join(errors.New("connection reset by peer"), resp.Body.Close())
}

// answer500 is a service that fails after it has done its work.
func answer500(send func() (*http.Response, error)) (*http.Response, error) {
	resp, err := send()
	if err != nil {
		return nil, err
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	resp.Status, resp.StatusCode, resp.Body, resp.ContentLength = "500 Internal Server Error", 500, http.NoBody, 0
	return resp, nil
}

// withoutETags is an answer that does not say what the new versions are.
func withoutETags(send func() (*http.Response, error)) (*http.Response, error) {
	resp, err := send()
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	without := regexp.MustCompile(`(?im)^etag:.*\r\n`).ReplaceAll(body, nil)
	if len(without) == len(body) {
		return nil, errors.New("the answer has no ETags to take out")
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(without)), int64(len(without))
	resp.Header.Del("Content-Length")
	return resp, nil
}

// meanwhile loses the request before it reaches the service, and lets somebody else act.
func meanwhile(act func() error) fault {
	return func(func() (*http.Response, error)) (*http.Response, error) {
		return nil, errors.Join(errors.New("connection reset by peer"), act())
	}
}

// overWire opens a ledger over a wire, and one more over the same tables without.
func overWire(t *testing.T, connection string) (l, other *ledger.Ledger, w *wire) {
	t.Helper()
	w = new(wire)
	o := ledger.TablesOptions{ConnectionString: connection, Prefix: prefix(), Transport: w}
	l = openTables(t, o)
	o.Transport = nil
	return l, openTables(t, o), w
}

// TestOwnWriteIsKnown loses the answer to a write that was done. The SDK repeats it and is told that it is too late.
func TestOwnWriteIsKnown(t *testing.T) {
	connection := ledgertest.StartAzurite(t)
	for name, lost := range map[string]fault{"answer dropped": dropAnswer, "answered with 500": answer500, "answered without versions": withoutETags} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, other, w := overWire(t, connection)
			mustInsert(t, other, newRows(0, 1)) // so that the tables are there

			w.inject(lost)
			rows := mustInsert(t, l, newRows(1, 4))

			w.inject(pass, lost) // refused for row 3, then done
			got, err := l.Insert(t.Context(), newRows(3, 6))
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, got...)

			w.inject(lost)
			settled := mustReplace(t, l, settle(rows))
			if got, want := len(settled), 5; got != want {
				t.Fatalf("rows settled: got %d, want %d", got, want)
			}
			if got, want := len(mustDue(t, l, noon.Add(time.Hour))), 1; got != want {
				t.Errorf("rows due: got %d, want %d: that of the other", got, want)
			}
			read, err := other.Get(t.Context(), []signup.UserID{user(1), user(2), user(3), user(4), user(5)})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(settled, read); d != "" {
				t.Errorf("rows returned and rows stored (-stored +returned):\n%s", d)
			}

			n := signup.Note{Name: "lease", Body: []byte(`{"owner":"run-1"}`)}
			w.inject(pass, lost) // there is no table, then done
			if n, err = l.PutNote(t.Context(), n); err != nil {
				t.Fatalf("make the note: %v", err)
			}
			w.inject(lost)
			if n, err = l.PutNote(t.Context(), n); err != nil {
				t.Fatalf("write over the note: %v", err)
			}
			stored, err := other.Note(t.Context(), "lease")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(stored, n); d != "" {
				t.Errorf("note returned and note stored (-stored +returned):\n%s", d)
			}
		})
	}
}

// TestAnothersWriteIsNotTakenForOwn lets somebody else write the very same while the request is lost on its way.
func TestAnothersWriteIsNotTakenForOwn(t *testing.T) {
	connection := ledgertest.StartAzurite(t)
	l, other, w := overWire(t, connection)
	ctx := t.Context()
	mustInsert(t, other, newRows(0, 1))
	note, err := other.PutNote(ctx, signup.Note{Name: "lease", Body: []byte(`{}`)})
	if err != nil {
		t.Fatal(err)
	}

	var rows []signup.Row
	w.inject(meanwhile(func() (err error) { rows, err = other.Insert(ctx, newRows(1, 2)); return err }))
	got, err := l.Insert(ctx, newRows(1, 3))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].User != user(2) || len(rows) != 1 {
		t.Errorf("insert: got %v new, want only user 2: user 1 is the other's", got)
	}

	w.inject(meanwhile(func() error { _, err := other.Replace(ctx, settle(rows)); return err }))
	written, err := l.Replace(ctx, settle(append(slices.Clone(rows), got...)))
	if !errors.Is(err, signup.ErrConflict) || len(written) != 1 || written[0].User != user(2) {
		t.Errorf("replace: got %v and error %v, want user 2 and a conflict", written, err)
	}

	w.inject(meanwhile(func() error { _, err := other.PutNote(ctx, note); return err }))
	if _, err := l.PutNote(ctx, note); !errors.Is(err, signup.ErrConflict) {
		t.Errorf("put note: got error %v, want a conflict", err)
	}
}

// TestCountsAreWhatIsSent compares the counts, by which other stores are judged, with real requests.
func TestCountsAreWhatIsSent(t *testing.T) {
	l, other, w := overWire(t, ledgertest.StartAzurite(t))
	mustInsert(t, other, newRows(0, 1))
	if _, err := other.PutNote(t.Context(), signup.Note{Name: "since", Body: []byte(`1`)}); err != nil {
		t.Fatal(err)
	}
	counted := used(l, func() {
		rows := mustInsert(t, l, newRows(1, 121))
		if _, err := l.Insert(t.Context(), newRows(100, 130)); err != nil { // some exist
			t.Fatal(err)
		}
		mustReplace(t, l, settle(rows))
		mustDue(t, l, noon)
		for range l.All(t.Context()) {
		}
		if _, err := l.PutNote(t.Context(), signup.Note{Name: "lease", Body: []byte(`1`)}); err != nil {
			t.Fatal(err)
		}
	})
	if got, want := int64(w.sent()), counted.Transactions+counted.NoteWrites+counted.Reads; got != want {
		t.Errorf("requests: got %d, want %d: %+v", got, want, counted)
	}
}

// TestShortPagesAreNotTheEnd has the service answer an empty page that goes on, as it may at any time.
func TestShortPagesAreNotTheEnd(t *testing.T) {
	connection := ledgertest.StartAzurite(t)
	o := ledger.TablesOptions{ConnectionString: connection, Prefix: prefix()}
	rows := mustInsert(t, openTables(t, o), newRows(0, 20))
	o.Transport = transport(func(req *http.Request) (*http.Response, error) {
		q := req.URL.Query()
		if req.Method != http.MethodGet || !q.Has("$filter") {
			return http.DefaultClient.Do(req)
		}
		if q.Get("NextRowKey") != "go on" {
			resp := reply(req, 200, `{"odata.metadata":"x","value":[]}`)
			resp.Header.Set("x-ms-continuation-NextPartitionKey", "go on")
			resp.Header.Set("x-ms-continuation-NextRowKey", "go on")
			return resp, nil
		}
		q.Del("NextRowKey")
		q.Del("NextPartitionKey")
		again := req.Clone(context.WithoutCancel(req.Context()))
		again.URL.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
		return http.DefaultClient.Do(again)
	})
	l := openTables(t, o)
	if got, want := len(mustDue(t, l, noon)), len(rows); got != want {
		t.Errorf("rows due: got %d, want %d", got, want)
	}
	all := 0
	for _, err := range l.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all++
	}
	if got, want := all, len(rows); got != want {
		t.Errorf("all rows: got %d, want %d", got, want)
	}
}

// reply is an answer that no service gave.
func reply(req *http.Request, status int, body string) *http.Response {
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}
