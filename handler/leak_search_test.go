package main

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

// leakSearch looks for texts that must not be there, in every form in which they get into logs by mistake: thousands of
// forms at once, by their first eight bytes.
type leakSearch struct {
	exact, folded map[uint64][]leakNeedle // those for which letter case counts, and the others
}

type leakNeedle struct {
	what, form string
	bytes      []byte
}

// newLeakSearch takes the texts, by what they are. Each must have eight bytes.
func newLeakSearch(texts map[string]string) *leakSearch {
	s := &leakSearch{map[uint64][]leakNeedle{}, map[uint64][]leakNeedle{}}
	for _, what := range slices.Sorted(maps.Keys(texts)) {
		forms := leakForms(texts[what])
		for _, form := range slices.Sorted(maps.Keys(forms)) {
			n, into := leakNeedle{what, form, []byte(forms[form])}, s.exact
			if !strings.HasPrefix(form, "base64") {
				n.bytes, into = bytes.ToLower(n.bytes), s.folded
			}
			first := binary.LittleEndian.Uint64(n.bytes)
			into[first] = append(into[first], n)
		}
	}
	return s
}

// leakForms are a text and what encoders and hashes make of it.
func leakForms(text string) map[string]string {
	forms := map[string]string{"plain": text}
	add := func(form, s string) {
		if s != text {
			forms[form] = s
		}
	}
	add("escaped for a query", url.QueryEscape(text))
	add("escaped for a path", url.PathEscape(text))
	add("escaped twice", url.QueryEscape(url.QueryEscape(text)))
	quoted, _ := json.Marshal(text)
	add("in JSON", strings.Trim(string(quoted), `"`))
	add("quoted", strings.Trim(strconv.QuoteToASCII(text), `"`))
	add("hex", hex.EncodeToString([]byte(text)))
	for _, spelling := range []string{text, strings.ToLower(text)} {
		s, sum := fmt.Sprint(spelling == text), md5.Sum([]byte(spelling))
		add("MD5 "+s, hex.EncodeToString(sum[:]))
		add("base64 of MD5 "+s, base64.StdEncoding.EncodeToString(sum[:])[:20])
		one, two := sha1.Sum([]byte(spelling)), sha256.Sum256([]byte(spelling))
		add("SHA-1 "+s, hex.EncodeToString(one[:]))
		add("SHA-256 "+s, hex.EncodeToString(two[:]))
	}
	var wide []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		wide = append(wide, byte(unit), byte(unit>>8))
	}
	add("UTF-16", string(wide))
	for i, spelling := range []string{text, strings.ToLower(text), strings.ToUpper(text)} {
		for before := range 3 { // how many bytes stand before it in its group of three
			for name, enc := range map[string]*base64.Encoding{"std": base64.RawStdEncoding, "url": base64.RawURLEncoding} {
				coded := enc.EncodeToString(append(make([]byte, before), spelling...))
				if whole := coded[(before*8+5)/6 : (before+len(spelling))*8/6]; len(whole) >= 8 {
					forms[fmt.Sprintf("base64 %d %s %d", i, name, before)] = whole
				}
			}
		}
	}
	return forms
}

// in says what was found in a text, once each, with what stands around it.
func (s *leakSearch) in(data []byte) (found []string) {
	seen := map[string]bool{}
	for _, pass := range []struct {
		needles map[uint64][]leakNeedle
		data    []byte
	}{{s.exact, data}, {s.folded, bytes.ToLower(data)}} {
		for i := 0; i+8 <= len(pass.data); i++ {
			for _, n := range pass.needles[binary.LittleEndian.Uint64(pass.data[i:])] {
				if bytes.HasPrefix(pass.data[i:], n.bytes) && !seen[n.what+n.form] {
					seen[n.what+n.form] = true
					found = append(found, fmt.Sprintf("%s, %s: …%q…", n.what, n.form, pass.data[max(0, i-60):min(len(pass.data), i+len(n.bytes)+60)]))
				}
			}
		}
	}
	return found
}

// TestALeakIsFoundInEveryForm plants each form of a text in the midst of others.
func TestALeakIsFoundInEveryForm(t *testing.T) {
	const secret = "Zoë+Q7/marker@Example.com"
	s := newLeakSearch(map[string]string{"a marker": secret, "another": "nothing of this"})
	plant := map[string]string{
		"as it is": secret, "in lower case": strings.ToLower(secret), "in upper case": strings.ToUpper(secret),
		"in a query": "to=" + url.QueryEscape(secret) + "&x=1", "in a path": "/users/" + url.PathEscape(secret),
		"in a query in a query": url.QueryEscape("u=" + url.QueryEscape(secret)),
		"in JSON":               fmt.Sprintf("%+q", secret),
		"hex":                   hex.EncodeToString([]byte("user " + secret)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"Mailchimp's hash":   fmt.Sprintf("/members/%x", md5.Sum([]byte(strings.ToLower(secret)))),
		"a hash in base64":   base64.StdEncoding.EncodeToString(sliceOf(md5.Sum([]byte(secret)))),
		"a SHA-256":          fmt.Sprintf("%x", sha256.Sum256([]byte(strings.ToLower(secret)))),
		"on SQL Server":      string(utf16le(secret)),
		"a password of HTTP": "Basic " + base64.StdEncoding.EncodeToString([]byte("signup-sync:"+secret)),
		"a token's claim":    base64.RawURLEncoding.EncodeToString([]byte(`{"a":"` + strings.ToLower(secret) + `"}`)),
	}
	for n := range 3 {
		plant[fmt.Sprintf("base64 behind %d bytes", n)] = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", n) + secret + "yy"))
	}
	for _, name := range slices.Sorted(maps.Keys(plant)) {
		line := []byte("level=INFO msg=done " + plant[name] + " users=3\n")
		if found := s.in(line); len(found) == 0 || !strings.HasPrefix(found[0], "a marker") {
			t.Errorf("%s: found %q in %s", name, found, line)
		}
	}
	if found := s.in([]byte("level=INFO msg=done users=3 marker@example zoe q7")); found != nil {
		t.Errorf("found %q where there is nothing", found)
	}
}

func sliceOf(sum [md5.Size]byte) []byte { return sum[:] }

func utf16le(s string) (wide []byte) {
	for _, unit := range utf16.Encode([]rune(s)) {
		wide = append(wide, byte(unit), byte(unit>>8))
	}
	return wide
}
