package connector

import (
	"crypto/md5"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"signup-sync/handler/signup"
)

// wish is what a user's record asks for.
type wish struct {
	user        signup.UserID
	at          string // of the sign-up
	email       string
	hash        string // of the address, by which Mailchimp names a contact
	status      string // of a new contact: subscribed or pending
	merge       map[string]any
	language    string
	ip          string
	permissions []mailchimpPermission
}

type mailchimpPermission struct {
	ID      string `json:"marketing_permission_id"`
	Enabled bool   `json:"enabled"`
}

// wishOf reads a record. Without consent, or without an address, it is a skip; consents says that the record is to hold
// one.
func wishOf(req signup.Request, consents bool) (wish, error) {
	w := wish{user: req.User, at: req.Created.UTC().Format(mailchimpTime), email: req.Email, merge: map[string]any{}}
	if v, there := req.Record["status"]; there || consents {
		if err := w.consent(v); err != nil {
			return w, err
		}
	} else {
		w.status = "pending"
	}
	texts := map[string]*string{"email": &w.email, "language": &w.language, "ipSignup": &w.ip}
	for _, name := range sortedKeys(req.Record) {
		v := req.Record[name]
		fields, nested := v.(map[string]any)
		switch field, isText := texts[name]; {
		case v == nil || v == "" || name == "status":
		case isText:
			s, ok := v.(string)
			if !ok {
				return w, invalidRecord("record." + name + " is not text")
			}
			*field = s
		case (name == "mergeFields" || name == "marketingPermissions") && !nested:
			return w, invalidRecord("record." + name + " has no fields")
		case name == "mergeFields":
			for _, tag := range sortedKeys(fields) {
				s, ok := textOf(fields[tag])
				if !ok {
					return w, invalidRecord("record.mergeFields." + tag + " is neither text nor a number")
				}
				if s != "" {
					w.merge[tag] = s
				}
			}
		case name == "marketingPermissions":
			for _, id := range sortedKeys(fields) {
				enabled, ok := fields[id].(bool)
				if !ok {
					return w, invalidRecord("record.marketingPermissions." + id + " is not true or false")
				}
				w.permissions = append(w.permissions, mailchimpPermission{id, enabled})
			}
		default:
			return w, invalidRecord("record." + name + " is not known")
		}
	}
	if w.ip != "" {
		if _, err := netip.ParseAddr(w.ip); err != nil {
			return w, invalidRecord("record.ipSignup is not an IP address")
		}
	}
	w.language = mailchimpLanguage(w.language)
	if w.email = strings.TrimSpace(w.email); w.email == "" {
		return w, &signup.Error{Class: signup.Skip, Code: "no-email"}
	}
	sum := md5.Sum([]byte(strings.ToLower(w.email)))
	w.hash = hex.EncodeToString(sum[:])
	return w, nil
}

// consent takes the value of record.status. A yes in no more words is asked to be confirmed; nothing said is no yes.
func (w *wish) consent(v any) error {
	switch v {
	case "skip", false, "", nil:
		return &signup.Error{Class: signup.Skip, Code: "no-consent"}
	case "subscribed":
		w.status = "subscribed"
	case "pending", true:
		w.status = "pending"
	default:
		return invalidRecord("record.status is none of subscribed, pending and skip")
	}
	return nil
}

// mailchimpLanguage brings a language tag to Mailchimp's codes, which have a region in three cases only.
func mailchimpLanguage(tag string) string {
	language, region, _ := strings.Cut(strings.ReplaceAll(tag, "_", "-"), "-")
	language, region = strings.ToLower(language), strings.ToUpper(region)
	if code := language + "_" + region; slices.Contains([]string{"es_ES", "fr_CA", "pt_PT"}, code) {
		return code
	}
	return language
}
