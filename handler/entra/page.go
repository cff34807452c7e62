package entra

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	abstractions "github.com/microsoft/kiota-abstractions-go"

	"signup-sync/handler/signup"
)

// maxPages ends a read whose pages do not end: two million records.
const maxPages = 2000

// badPage says what is wrong with a page that is valid JSON so far.
type badPage string

func (e badPage) Error() string { return string(e) }

// decoder reads one answer, at most maxBody of it, value by value; no answer is held as a whole.
type decoder struct{ json *json.Decoder }

func newDecoder(r io.Reader) *decoder { return &decoder{json.NewDecoder(&limited{r, maxBody})} }

type limited struct {
	r io.Reader
	n int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.n <= 0 {
		return 0, badPage("the answer is too large")
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.n)])
	l.n -= int64(n)
	return n, err
}

// value decodes the next value. After a *json.UnmarshalTypeError the decoder stands behind that value, and v holds
// what did fit.
func (d *decoder) value(v any) error { return d.json.Decode(v) }

// skip passes over the next value.
func (d *decoder) skip() error { return d.json.Decode(&ignored{}) }

// whole decodes the answer, one value and nothing behind it.
func (d *decoder) whole(v any) error {
	if err := d.value(v); err != nil {
		return err
	}
	return d.end()
}

func (d *decoder) end() error {
	switch _, err := d.json.Token(); err {
	case io.EOF:
		return nil
	case nil:
		return badPage("the answer goes on behind its end")
	default:
		return err
	}
}

// delim reads the next token, which must be want.
func (d *decoder) delim(want json.Delim) error {
	t, err := d.json.Token()
	if err != nil {
		return err
	}
	if t != want {
		return badPage("the answer has no " + want.String() + " where it should")
	}
	return nil
}

// ignored is a value that nobody looks at.
type ignored struct{}

func (*ignored) UnmarshalJSON([]byte) error { return nil }

// decodePage reads a collection's page, {"value":[…],"@odata.nextLink":"…"}, calls each for every element, which must
// take exactly one value, and returns the link to the next page, "" after the last. A page that is not whole is an
// error; Graph has been seen to break off a 200 with an error written into it (microsoft-graph-docs#3648).
func decodePage(d *decoder, each func(d *decoder) error) (next string, err error) {
	if err := d.delim('{'); err != nil {
		return "", err
	}
	found := false
	for d.json.More() {
		key, err := d.json.Token()
		if err != nil {
			return "", unexpected(err)
		}
		switch key {
		case "value":
			found = true
			if err := decodeArray(d, each); err != nil {
				return "", unexpected(err)
			}
		case "@odata.nextLink":
			if err := d.value(&next); err != nil {
				return "", unexpected(err)
			}
		case "error":
			return "", badPage("the answer has an error written into it")
		default:
			if err := d.skip(); err != nil {
				return "", unexpected(err)
			}
		}
	}
	if err := d.delim('}'); err != nil {
		return "", unexpected(err)
	}
	if !found {
		return "", badPage("the answer has no value array")
	}
	return next, d.end()
}

func decodeArray(d *decoder, each func(d *decoder) error) error {
	if err := d.delim('['); err != nil {
		return err
	}
	for d.json.More() {
		if err := each(d); err != nil {
			return err
		}
	}
	return d.delim(']')
}

// unexpected turns an end inside the page into io.ErrUnexpectedEOF; only an answer without a byte is empty.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// collection is a read over all pages.
type collection struct {
	request
	next  func(ctx context.Context, link string) (*abstractions.RequestInformation, error)
	under string                 // what the path of each further page begins with; "" = anything on the same host
	each  func(d *decoder) error // called again for the elements of a page that is tried again, after start
	page  func(start bool) bool  // start: a page begins, or begins anew; else it is whole: false ends the read
}

// read goes through the pages to the last. The first page's error carries its status; a 400 on a later one means that
// the page token has expired (code "page-expired"), and the read is to be begun anew.
func (c *client) read(ctx context.Context, col collection) error {
	seen := map[string]bool{}
	for n := 1; ; n++ {
		link := ""
		r := col.request
		r.decode = func(d *decoder) (err error) {
			col.page(true)
			link, err = decodePage(d, col.each)
			return err
		}
		if err := c.do(ctx, r); err != nil {
			return err
		}
		if !col.page(false) || link == "" {
			return nil
		}
		u, err := c.follow(link, col.under)
		if err != nil {
			return err
		}
		if seen[link] || n == maxPages {
			return &signup.Error{Class: signup.Transient, Code: "bad-answer", Detail: fmt.Sprintf("the pages do not end: %d read", n)}
		}
		seen[link] = true
		col.request.info = func(ctx context.Context) (*abstractions.RequestInformation, error) { return col.next(ctx, u) }
		col.request.refine = func(e *signup.Error, _ graphError) {
			if e.Status == 400 {
				e.Class, e.Code = signup.Transient, "page-expired"
			}
		}
	}
}

// follow accepts a link to the next page only if it leads to where the first page came from: the token goes with it, and
// another version has other records.
func (c *client) follow(link, under string) (string, error) {
	u, err := url.Parse(link)
	if err != nil || u.Scheme != c.root.Scheme || !strings.EqualFold(address(u), address(c.root)) || u.User != nil {
		return "", &signup.Error{Class: signup.Transient, Code: "bad-answer", Detail: "the link to the next page leads to another host"}
	}
	if !strings.HasPrefix(u.Path, under) {
		return "", &signup.Error{Class: signup.Transient, Code: "bad-answer", Detail: "the link to the next page leads to another version of Graph"}
	}
	u.RawQuery = strings.ReplaceAll(u.RawQuery, " ", "%20")
	return u.String(), nil
}

// address is host and port.
func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = u.Scheme
	}
	if port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" {
		port = u.Scheme
	}
	return u.Hostname() + ":" + port
}
