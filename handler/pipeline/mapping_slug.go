package pipeline

import (
	"errors"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"signup-sync/handler/signup"
)

// maxSlug leaves room in the 64 characters of a user principal name's local part for "." and a short id.
const maxSlug = 64 - 1 - 8

// ascii spells the Latin letters that Unicode does not decompose into a base letter and marks.
var ascii = map[rune]string{
	'ß': "ss", 'æ': "ae", 'œ': "oe", 'ø': "o", 'đ': "d", 'ð': "d", 'þ': "th", 'ł': "l", 'ħ': "h", 'ı': "i",
	'ŋ': "n", 'ŧ': "t", 'ĸ': "k", 'ƒ': "f", 'ə': "e", 'ɓ': "b", 'ɗ': "d", 'ƙ': "k", 'ƴ': "y", 'ɛ': "e", 'ɔ': "o",
}

// slug spells s with a to z, 0 to 9, and single dots and hyphens between them, at most 55 characters. Accents are
// taken off, white space and underscores are hyphens, and what has no such spelling, whole scripts included, is
// dropped.
func slug(s string) string {
	var b strings.Builder
	separator := byte(0)
	for _, r := range norm.NFKD.String(strings.ToLower(s)) {
		switch {
		case r == '.':
			separator = '.'
			continue
		case r == '-' || r == '_' || unicode.IsSpace(r) || unicode.Is(unicode.Pd, r):
			if separator == 0 {
				separator = '-'
			}
			continue
		}
		letters := ascii[r]
		if r >= 'A' && r <= 'Z' { // a compatibility form of a capital letter
			r += 'a' - 'A'
		}
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			letters = string(r)
		}
		if letters == "" {
			continue
		}
		if separator != 0 && b.Len() > 0 {
			b.WriteByte(separator)
		}
		separator = 0
		b.WriteString(letters)
	}
	out := b.String()
	if len(out) > maxSlug {
		out = strings.TrimRight(out[:maxSlug], ".-")
	}
	return out
}

// short is the first eight characters of a GUID.
func short(id string) (string, error) {
	u, err := signup.ParseUserID(id)
	if err != nil {
		return "", errors.New("short takes a GUID, such as user.id")
	}
	return string(u[:8]), nil
}

// clip is the first n characters of s, for fields that take no more, without white space at the end.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		s = strings.TrimRightFunc(string(r[:max(n, 0)]), unicode.IsSpace)
	}
	return s
}
