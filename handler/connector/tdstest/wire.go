package tdstest

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"unicode/utf16"
)

// Types of messages (MS-TDS 2.2.3.1.1), and the first byte of a TLS record.
const (
	batch     = 1
	rpc       = 3
	reply     = 4
	attention = 6
	login7    = 16
	prelogin  = 18
	tlsRecord = 22
)

// packetSize is the size of a packet until another is agreed upon.
const packetSize = 4096

var errShort = errors.New("tdstest: a message is too short, or not one that is understood")

// readMessage puts the packets of a message together; bit 1 of the status is the last one's.
func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	for {
		var header [8]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return 0, nil, err
		}
		size := int(binary.BigEndian.Uint16(header[2:])) - len(header)
		if size < 0 {
			return 0, nil, errShort
		}
		part := make([]byte, size)
		if _, err := io.ReadFull(r, part); err != nil {
			return 0, nil, err
		}
		body = append(body, part...)
		if header[1]&1 != 0 {
			return header[0], body, nil
		}
	}
}

func writeMessage(w io.Writer, kind byte, body []byte) error {
	for id := byte(1); ; id++ {
		part := body[:min(len(body), packetSize-8)]
		body = body[len(part):]
		header := []byte{kind, 0, 0, 0, 0, 0, id, 0}
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(part)))
		if len(body) == 0 {
			header[1] = 1
		}
		if _, err := w.Write(append(header, part...)); err != nil || len(body) == 0 {
			return err
		}
	}
}

// peeked is a connection of which something was read ahead.
type peeked struct {
	net.Conn
	from *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.from.Read(b) }

// wrapped carries a TLS handshake in prelogin messages (MS-TDS 3.2.5.1), and after it nothing but TLS.
type wrapped struct {
	net.Conn
	plain bool
	rest  []byte
}

func (w *wrapped) Read(b []byte) (int, error) {
	if w.plain {
		return w.Conn.Read(b)
	}
	if len(w.rest) == 0 {
		_, body, err := readMessage(w.Conn)
		if err != nil {
			return 0, err
		}
		w.rest = body
	}
	n := copy(b, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wrapped) Write(b []byte) (int, error) {
	if w.plain {
		return w.Conn.Write(b)
	}
	return len(b), writeMessage(w.Conn, prelogin, b)
}

// encrypt is TLS 1.2, the newest that TDS 7.4 wraps.
func encrypt(conn net.Conn, config *tls.Config) (net.Conn, error) {
	config = config.Clone()
	config.MaxVersion, config.SessionTicketsDisabled, config.NextProtos = tls.VersionTLS12, true, nil
	w := &wrapped{Conn: conn}
	t := tls.Server(w, config)
	err := t.Handshake()
	w.plain = true
	return t, err
}

// preloginAnswer offers encryption or not, and takes a token from a client that has one (MS-TDS 2.2.6.5).
func preloginAnswer(asked []byte, encrypts bool) []byte {
	const encryption, fedAuth, end = 1, 6, 0xff
	on := byte(2) // not supported
	if encrypts {
		on = 1
	}
	options := [][]byte{{0, 16, 0, 0, 0, 0}, {on}}
	ids := []byte{0, encryption}
	for at := 0; at+5 <= len(asked) && asked[at] != end; at += 5 {
		if asked[at] == fedAuth {
			ids, options = append(ids, fedAuth), append(options, []byte{1})
		}
	}
	var head, body []byte
	for i, id := range ids {
		head = append(head, id)
		head = binary.BigEndian.AppendUint16(head, uint16(5*len(ids)+1+len(body)))
		head = binary.BigEndian.AppendUint16(head, uint16(len(options[i])))
		body = append(body, options[i]...)
	}
	return append(append(head, end), body...)
}

// parseLogin reads a LOGIN7 message (MS-TDS 2.2.6.4): offsets and lengths of texts from byte 36 on.
func parseLogin(b []byte) (l Login, err error) {
	if len(b) < 94 {
		return l, errShort
	}
	field := func(n int) []byte {
		at := int(binary.LittleEndian.Uint16(b[36+4*n:]))
		size := 2 * int(binary.LittleEndian.Uint16(b[38+4*n:]))
		if at+size > len(b) {
			err = errShort
			return nil
		}
		return b[at : at+size]
	}
	password := bytes.Clone(field(2))
	for i, c := range password {
		c ^= 0xa5
		password[i] = c<<4 | c>>4
	}
	l = Login{User: fromUTF16(field(1)), Password: fromUTF16(password), App: fromUTF16(field(3)), Database: fromUTF16(field(8))}
	if b[27]&0x10 == 0 { // OptionFlags3, fExtension
		return l, err
	}
	at := int(binary.LittleEndian.Uint16(b[36+4*5:]))
	if at+4 > len(b) {
		return l, errShort
	}
	r := &reader{b: b}
	r.at = int(binary.LittleEndian.Uint32(b[at:]))
	for id := r.byte(); r.err == nil && id != 0xff; id = r.byte() {
		data := &reader{b: r.take(int(r.uint32()))}
		if library := data.byte(); id == 2 && library>>1 == 1 { // FEDAUTH, by a security token
			l.Token = fromUTF16(data.take(int(data.uint32())))
		}
	}
	return l, errors.Join(err, r.err)
}

func loginAnswer(l Login, refused []Error) []byte {
	if len(refused) > 0 {
		return appendDone(appendErrors(nil, refused), tokenDone, doneError, 0)
	}
	name := toUTF16("Microsoft SQL Server")
	ack := binary.BigEndian.AppendUint32([]byte{1}, 0x74000004)
	ack = append(append(ack, byte(len(name)/2)), name...)
	ack = append(ack, 16, 0, 0, 0)
	out := binary.LittleEndian.AppendUint16([]byte{0xad}, uint16(len(ack)))
	out = append(out, ack...)
	if l.Token != "" {
		out = append(out, 0xae, 2, 0, 0, 0, 0, 0xff) // FEATUREEXTACK
	}
	return appendDone(out, tokenDone, 0, 0)
}

// parseStatement reads a batch or a call of sp_executesql (MS-TDS 2.2.6.6, 2.2.6.7).
func parseStatement(m message) (s Statement, err error) {
	r := &reader{b: m.body}
	r.take(int(r.uint32()) - 4) // ALL_HEADERS
	if m.kind == batch {
		return Statement{SQL: fromUTF16(r.take(len(r.b) - r.at))}, r.err
	}
	const executeSQL = 10
	if name, id := r.uint16(), r.uint16(); m.kind != rpc || name != 0xffff || id != executeSQL {
		return s, errShort
	}
	r.uint16()
	var values []any
	for r.err == nil && r.at < len(r.b) {
		r.take(2 * int(r.byte())) // the name
		r.byte()                  // the status
		values = append(values, r.value())
	}
	if len(values) < 2 || r.err != nil {
		return s, errors.Join(errShort, r.err)
	}
	s.SQL, _ = values[0].(string)
	s.Declared, _ = values[1].(string)
	s.Values = values[2:]
	return s, nil
}

// reader reads little-endian fields, and zeros once there is no more.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) take(n int) []byte {
	if n < 0 || r.at < 0 || n > len(r.b)-r.at {
		r.err = errShort
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

func (r *reader) number(size int) (n uint64) {
	for i, b := range r.take(size) {
		n |= uint64(b) << (8 * i)
	}
	return n
}

func (r *reader) byte() byte     { return byte(r.number(1)) }
func (r *reader) uint16() uint16 { return uint16(r.number(2)) }
func (r *reader) uint32() uint32 { return uint32(r.number(4)) }

// value is a parameter's type and value (MS-TDS 2.2.5.4 to 2.2.5.6).
func (r *reader) value() any {
	switch kind := r.byte(); kind {
	case 0x1f: // NULL
		return nil
	case 0x26, 0x6d, 0x68: // INTN, FLTN, BITN
		r.byte()
		size := int(r.byte())
		n := r.number(size)
		switch {
		case size == 0:
			return nil
		case kind == 0x68:
			return n != 0
		case kind == 0x6d:
			return math.Float64frombits(n)
		}
		return int64(n)
	case 0xe7: // NVARCHAR
		if size := r.uint16(); size != 0xffff {
			r.take(5) // the collation
			return fromUTF16(r.take(int(r.uint16())))
		}
		r.take(5 + 8) // and the length, which is said once more
		var text []byte
		for n := r.uint32(); n != 0; n = r.uint32() {
			text = append(text, r.take(int(n))...)
		}
		return fromUTF16(text)
	default:
		r.err = fmt.Errorf("tdstest: type %#x is not understood", kind)
		return nil
	}
}

// Tokens that end a statement, and bits of their status (MS-TDS 2.2.7.6).
const (
	tokenDone, tokenDoneProc, tokenDoneInProc            = 0xfd, 0xfe, 0xff
	doneMore, doneError, doneCount, doneAttention uint16 = 1, 2, 0x10, 0x20
)

func appendDone(out []byte, token byte, status uint16, count int) []byte {
	out = binary.LittleEndian.AppendUint16(append(out, token), status)
	return binary.LittleEndian.AppendUint64(append(out, 0, 0), uint64(count))
}

func attentionAnswer() []byte { return appendDone(nil, tokenDone, doneAttention, 0) }

func appendErrors(out []byte, errs []Error) []byte {
	for _, e := range errs {
		text := toUTF16(e.Text)
		body := binary.LittleEndian.AppendUint32(nil, uint32(e.Number))
		body = append(body, 1, cmp.Or(e.Severity, 16)) // state, severity
		body = binary.LittleEndian.AppendUint16(body, uint16(len(text)/2))
		body = append(append(body, text...), 0, 0, 1, 0, 0, 0) // no server, no procedure, line 1
		out = binary.LittleEndian.AppendUint16(append(out, 0xaa), uint16(len(body)))
		out = append(out, body...)
	}
	return out
}

// encode is the answer to a statement that came as a message of this kind.
func (r Reply) encode(kind byte) []byte {
	var out []byte
	if r.Columns != nil {
		out = binary.LittleEndian.AppendUint16([]byte{0x81}, uint16(len(r.Columns))) // COLMETADATA
		for _, c := range r.Columns {
			out = append(out, 0, 0, 0, 0, 1, 0) // user type; nullable
			if _, number := c.(int); number {
				out = append(out, 0x26, 4)
			} else {
				out = append(out, 0xe7, 0x40, 0x1f, 9, 4, 0xd0, 0, 0x34) // 8000 bytes, Latin1_General_CI_AS
			}
			out = append(out, 0) // without a name
		}
	}
	for _, row := range r.Rows {
		out = append(out, 0xd1)
		for _, v := range row {
			switch v := v.(type) {
			case int:
				out = binary.LittleEndian.AppendUint32(append(out, 4), uint32(v))
			case string:
				text := toUTF16(v)
				out = append(binary.LittleEndian.AppendUint16(out, uint16(len(text))), text...)
			}
		}
	}
	out = appendErrors(out, r.Errors)
	var status uint16
	if len(r.Errors) > 0 {
		status = doneError
	}
	if kind == batch {
		return appendDone(out, tokenDone, status|doneCount, r.Count+len(r.Rows))
	}
	out = appendDone(out, tokenDoneInProc, status|doneCount|doneMore, r.Count+len(r.Rows))
	out = append(out, 0x79, 0, 0, 0, 0) // RETURNSTATUS
	return appendDone(out, tokenDoneProc, status, 0)
}

func toUTF16(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func fromUTF16(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}
