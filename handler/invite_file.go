package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// invitee is somebody to be invited.
type invitee struct {
	Line     int    // of the file; 0 = from the command line
	Address  string // as it was given, without blanks around it
	Name     string
	Message  string
	Redirect string
}

// key is the address as it is compared: Entra makes no difference between letter cases.
func (i invitee) key() string { return strings.ToLower(i.Address) }

// inviteColumns are what the file's header may name.
var inviteColumns = []string{"email", "name", "message", "redirect"}

// readInvitees reads a CSV file (RFC 4180): in UTF-8, with a header, comma or semicolon between the fields. What a line
// leaves out comes from the command line. All that is wrong is said at once, with the line.
func readInvitees(data []byte, absent invitee) ([]invitee, []error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if i := firstInvalid(data); i >= 0 {
		return nil, []error{fmt.Errorf("line %d: the file is not UTF-8: save it as CSV UTF-8", 1+bytes.Count(data[:i], []byte("\n")))}
	}
	r := csv.NewReader(bytes.NewReader(data))
	if header, _, _ := bytes.Cut(data, []byte("\n")); bytes.Contains(header, []byte(";")) && !bytes.Contains(header, []byte(",")) {
		r.Comma = ';' // as spreadsheets write it where the comma is in numbers
	}
	r.FieldsPerRecord = -1 // what is left out at a line's end is left out
	columns, err := readColumns(r)
	if err != nil {
		return nil, []error{err}
	}
	var all []invitee
	var errs []error
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if bad, ok := errors.AsType[*csv.ParseError](err); ok {
			errs = append(errs, fmt.Errorf("line %d: %w", bad.Line, bad.Err))
			continue
		}
		if err != nil {
			return nil, []error{err}
		}
		one := absent
		one.Line, _ = r.FieldPos(0)
		if len(record) > len(columns) {
			errs = append(errs, fmt.Errorf("line %d: has more fields than the header: quote a field that has a comma in it", one.Line))
			continue
		}
		fields := map[string]*string{"email": &one.Address, "name": &one.Name, "message": &one.Message, "redirect": &one.Redirect}
		for i, value := range record {
			if value = strings.TrimSpace(value); value != "" || columns[i] == "email" {
				*fields[columns[i]] = value
			}
		}
		if err := one.check(); err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", one.Line, err))
		}
		all = append(all, one)
	}
	if len(all) == 0 && len(errs) == 0 {
		errs = []error{errors.New("the file names nobody")}
	}
	return all, errs
}

// firstInvalid is where the first byte is that is no UTF-8; -1 if there is none.
func firstInvalid(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// readColumns reads the header.
func readColumns(r *csv.Reader) ([]string, error) {
	header, err := r.Read()
	if err != nil {
		return nil, errors.New("line 1: wants a header: email, and name, message or redirect as needed")
	}
	for i, name := range header {
		header[i] = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(inviteColumns, header[i]) {
			return nil, fmt.Errorf("line 1: column %d of the header is none of %s", i+1, strings.Join(inviteColumns, ", "))
		}
		if slices.Contains(header[:i], header[i]) {
			return nil, fmt.Errorf("line 1: the column %s is there twice", header[i])
		}
	}
	if !slices.Contains(header, "email") {
		return nil, errors.New("line 1: the column email is missing")
	}
	return header, nil
}

// check says what is wrong with one, without repeating the address.
func (i invitee) check() error {
	return errors.Join(checkAddress(i.Address), checkRedirect(i.Redirect))
}

// checkAddress refuses what the service does (invitation, invitedUserEmailAddress), addresses with a plus among it.
func checkAddress(address string) error {
	local, domain, at := strings.Cut(address, "@")
	switch {
	case address == "":
		return errors.New("the e-mail address is missing")
	case !at || local == "" || strings.Contains(domain, "@") || !strings.Contains(strings.Trim(domain, "."), ".") || strings.Trim(domain, ".-") != domain:
		return errors.New("the e-mail address is not one")
	case strings.ContainsAny(address, "~!#$%^&*()+=[]{}\\/|;:\"<>?,") || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return errors.New(`the e-mail address has a character that invitations do not take: ~!#$%^&*()+=[]{}\/|;:"<>?, or a blank`)
	case strings.Trim(local, ".-") != local:
		return errors.New("the e-mail address begins or ends with a period or hyphen before the @, which invitations do not take")
	}
	return nil
}

func checkRedirect(redirect string) error {
	u, err := url.Parse(redirect)
	switch {
	case redirect == "":
		return errors.New("where the guest goes after accepting is missing: --redirect, or the column redirect")
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
		return errors.New("the address to go to after accepting is no https:// URL")
	}
	return nil
}
