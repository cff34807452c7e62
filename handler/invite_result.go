package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"signup-sync/handler/signup"
)

// What becomes of an invitation.
const (
	inviteSending   = "sending"   // the intent: it is in the file before the invitation goes out
	inviteInvited   = "invited"   //
	inviteExists    = "exists"    // somebody in the tenant has the address
	inviteFailed    = "failed"    //
	invitePlanned   = "planned"   // in a plan
	inviteDuplicate = "duplicate" // of an earlier line
)

// inviteLine is a line of the result file. The last one of an address counts.
type inviteLine struct {
	Tenant string        `json:"tenant"`
	Line   int           `json:"line,omitempty"`
	Email  string        `json:"email"` // in lower case
	State  string        `json:"state"`
	Reason string        `json:"reason,omitempty"`
	User   signup.UserID `json:"user,omitempty"`
	Redeem string        `json:"redeemUrl,omitempty"` // where Microsoft sends no mail; a secret
	At     time.Time     `json:"at"`
}

// inviteResult is the file where an interrupted command goes on from. With nowhere to write it keeps nothing.
type inviteResult struct {
	path   string // "" = there is none
	tenant string
	before map[string]inviteLine // the last lines of earlier starts, by address

	whole int64 // bytes of whole lines
	open  bool  // the last line lacks its end
	file  *os.File
}

// readResult reads what earlier starts have written, and changes nothing. A last line that was cut off never counted: the
// intent before it does. Any other damage is an error, since somebody could be invited twice.
func readResult(path, tenant string) (*inviteResult, error) {
	r := &inviteResult{path: path, tenant: tenant, before: map[string]inviteLine{}}
	if path == "" {
		return r, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the result file: %w", err)
	}
	for number := 1; len(data) > 0; number++ {
		text, rest, ended := bytes.Cut(data, []byte("\n"))
		var line inviteLine
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		err := d.Decode(&line)
		if err == nil && (d.More() || line.Email == "" || line.State == "") {
			err = errors.New("it is not whole")
		}
		switch {
		case err != nil && !ended:
			return r, nil
		case err != nil:
			return nil, fmt.Errorf("%s: line %d is not one of a result file: mend it, or name another file with --result; without it people may be invited twice", path, number)
		case line.Tenant != tenant:
			return nil, fmt.Errorf("%s: line %d is about the tenant %s: name another file with --result", path, number, line.Tenant)
		}
		r.before[line.Email] = line
		r.whole += int64(len(text))
		if r.open = !ended; ended {
			r.whole++
		}
		data = rest
	}
	return r, nil
}

// lockResult keeps other starts away from the result file until what it returns is closed: what one has not read of the
// other it would take away, and invite anew.
func lockResult(path string) (io.Closer, error) {
	if path == "" {
		return io.NopCloser(nil), nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write the result file: %w", err)
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another invite is at work with this file: nothing was begun", path), f.Close())
	}
	return f, nil
}

// begin opens the file for the lines to come, and takes away what was cut off. Others than its owner cannot read it.
func (r *inviteResult) begin() error {
	if r.path == "" {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = f.Truncate(r.whole)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekEnd)
	}
	if err == nil && r.open {
		_, err = f.WriteString("\n")
	}
	if err != nil {
		return fmt.Errorf("write the result file: %w", err)
	}
	r.file = f
	return nil
}

// write appends a line, and returns when it is on the disk.
func (r *inviteResult) write(line inviteLine) error {
	if r.file == nil {
		return nil
	}
	line.Tenant = r.tenant
	text, err := json.Marshal(line)
	if err == nil {
		_, err = r.file.Write(append(text, '\n'))
	}
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write the result file: %w", err)
	}
	return nil
}

func (r *inviteResult) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
