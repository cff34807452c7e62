package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

const (
	userPrefix = "user|"
	userEnd    = "user}" // '}' follows '|'
	duePrefix  = "due|"
	dueEnd     = "due}"
)

// stampFormat is UTC with nine decimals: exact, so that nothing is due early and nothing late.
const stampFormat = "2006-01-02t15:04:05.000000000z"

// stamp is a time as part of a key; "" for the zero time, which is never due.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(stampFormat)
}

func userKey(id signup.UserID) string { return userPrefix + string(id) }

func dueKey(stamp string, id signup.UserID) string { return duePrefix + stamp + "|" + string(id) }

// parseDueKey is the inverse of dueKey.
func parseDueKey(key string) (stamp string, id signup.UserID, ok bool) {
	stamp, user, ok := strings.Cut(strings.TrimPrefix(key, duePrefix), "|")
	return stamp, signup.UserID(user), ok
}

// dueBefore is the end of the range of index entries that are due by t, exclusive.
func dueBefore(t time.Time) string {
	t = t.UTC().Add(time.Nanosecond)
	switch {
	case t.Year() > 9999:
		return dueEnd
	case t.Year() < 0:
		return duePrefix
	}
	return duePrefix + t.Format(stampFormat)
}

// rowVersion joins what a later Replace needs: the store's version, and which index entry the row has.
func rowVersion(stamp, version string) string { return stamp + " " + version }

func splitVersion(v string) (stamp, version string, ok bool) {
	return strings.Cut(v, " ")
}

// encode checks a row and returns its body.
func encode(r signup.Row) (string, error) {
	if strings.Contains(string(r.User), "|") {
		return "", fmt.Errorf("user id %q holds %q", r.User, '|')
	}
	if err := checkKey(string(r.User)); err != nil {
		return "", fmt.Errorf("check the user id: %w", err)
	}
	if y := r.Due.UTC().Year(); y < 0 || y > 9999 {
		return "", fmt.Errorf("row of user %s is due in the year %d, want 0 to 9999", r.User, y)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return "", fmt.Errorf("encode the row of user %s: %w", r.User, err)
	}
	body := strings.TrimSuffix(b.String(), "\n")
	if len(body) > maxBody {
		return "", fmt.Errorf("row of user %s has %d bytes in %d associations, want at most %d: configure fewer destinations",
			r.User, len(body), len(r.Associations), maxBody)
	}
	return body, nil
}

func decode(e entity) (signup.Row, error) {
	var r signup.Row
	if err := json.Unmarshal([]byte(e.Body), &r); err != nil {
		return signup.Row{}, fmt.Errorf("decode the entity %s: %w", e.Key, err)
	}
	if userKey(r.User) != e.Key {
		return signup.Row{}, fmt.Errorf("decode the entity %s: it holds the row of user %q", e.Key, r.User)
	}
	r.Version = rowVersion(stamp(r.Due), e.Version)
	return r, nil
}
