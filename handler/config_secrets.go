package main

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// keyVaultReference begins an app setting that the platform should have replaced by a secret's value.
const keyVaultReference = "@Microsoft.KeyVault("

// reference is ${NAME}, or the escape $${, or a ${ that is neither.
var reference = regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{`)

// expand replaces the references in the strings of a destination's settings. What cannot be read is left out.
func (r *reader) expand(n *yamlNode, destination string) any {
	switch n.kind {
	case kindMap:
		m := make(map[string]any, len(n.keys))
		for _, k := range n.keys {
			m[k.name] = r.expand(k.value, destination)
		}
		return m
	case kindList:
		l := make([]any, 0, len(n.items))
		for _, item := range n.items {
			l = append(l, r.expand(item, destination))
		}
		return l
	case kindString:
		return r.expandString(n)
	}
	return n.value
}

func (r *reader) expandString(n *yamlNode) string {
	text, bad := n.value.(string), false
	out := reference.ReplaceAllStringFunc(text, func(match string) string {
		if match == "$${" {
			return "${"
		}
		name := strings.TrimSuffix(strings.TrimPrefix(match, "${"), "}")
		value := r.getenv(name)
		switch {
		case name == "":
			bad = true
			r.problem(n.path, "${ needs a name and }, as in ${STRIPE_API_KEY}; for the characters themselves write $${")
		case value == "":
			bad = true
			r.settingProblem(n.path, name, "the app setting "+name+" is missing or empty: set it, usually to a Key Vault reference")
		case strings.HasPrefix(value, keyVaultReference):
			bad = true
			r.settingProblem(n.path, name, unresolved(name))
		default:
			r.conceal(value)
		}
		return value
	})
	if bad {
		return ""
	}
	return out
}

// settingProblem notes that the value at path needs an app setting that cannot be had.
func (r *reader) settingProblem(path, setting, message string) {
	r.problem(path, "%s", message)
	r.errs[len(r.errs)-1].setting = setting
}

// unresolved says what to do about an app setting whose Key Vault reference the platform has not replaced.
func unresolved(name string) string {
	return "the Key Vault reference in the app setting " + name + " did not resolve: the portal shows why beside it, under the Function App's " +
		"Environment variables; mostly the identity lacks the role Key Vault Secrets User, keyVaultReferenceIdentity does not name it, or the secret does not exist"
}

// secretForm is how a kind of secret looks. A form with a group is a secret only if the group is not a reference.
type secretForm struct {
	name string
	form *regexp.Regexp
}

var secretForms = []secretForm{
	{"a Stripe key", regexp.MustCompile(`\b[sr]k_(?:live|test)_[0-9A-Za-z]{4,}`)},
	{"a webhook's signing secret", regexp.MustCompile(`\bwhsec_[0-9A-Za-z+/=_-]{4,}`)},
	{"a Mailchimp key", regexp.MustCompile(`\b[0-9a-fA-F]{32}-[a-z]{2,3}[0-9]{1,3}\b`)},
	{"a storage or bus key", regexp.MustCompile(`(?i)\b(?:AccountKey|SharedAccessKey|SharedAccessSignature)\s*=\s*([^;\s]+)`)},
	{"a shared access signature", regexp.MustCompile(`(?i)[?&]sig=([^&\s]+)`)},
	{"a key in a URL", regexp.MustCompile(`(?i)[?&](?:code|key|token|access_token|apikey)=([^&\s"']{8,})`)},
	{"a webhook's secret path", regexp.MustCompile(`hooks\.slack\.com/services/([^\s"']{8,})`)},
	{"a token", regexp.MustCompile(`\beyJ[0-9A-Za-z_-]{5,}\.[0-9A-Za-z_-]{5,}\.[0-9A-Za-z_-]*`)},
	{"a token", regexp.MustCompile(`(?i)\b(?:bearer|basic)\s+([^\s"',\]}]*[0-9=][^\s"',\]}]*)`)},
	{"a private key", regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*`)},
	{"a password", regexp.MustCompile(`(?i)[a-z][a-z0-9+.-]*://[^/\s:@]*:([^@/\s]+)@`)},
	{"a password", regexp.MustCompile(`[^:@/\s"']+:([^@\s"']+)@(?:[a-z]+\(|/)`)},
	{"a password", regexp.MustCompile(`(?i)\b(?:password|passwd|pwd|client_?secret|api_?key)\s*=\s*([^;&\s"'=]+)`)},
}

// secretKey ends the names of settings that hold secrets.
var secretKey = regexp.MustCompile(`(?i)(key|secret|password|passwd|pwd|token|credential|authorization)s?$`)

// alwaysSecret ends the names of settings that hold nothing but secrets.
var alwaysSecret = regexp.MustCompile(`(?i)(secret|password|passwd|pwd)$`)

// secret tells what kind of secret the text holds and which part it is; "" if none.
func secret(text string) (name, part string) {
	text = reference.ReplaceAllString(text, "$${}")
	for _, f := range secretForms {
		for _, m := range f.form.FindAllStringSubmatch(text, -1) {
			if part = m[len(m)-1]; part != "${}" {
				return f.name, part
			}
		}
	}
	return "", ""
}

// looksRandom reports a string that nobody would type: long, of letters and digits mixed, and without much order.
func looksRandom(s string) bool {
	if len(s) < 16 || strings.ContainsFunc(s, unicode.IsSpace) || !strings.ContainsFunc(s, unicode.IsDigit) || !strings.ContainsFunc(s, unicode.IsLetter) {
		return false
	}
	var count [256]float64
	for i := range len(s) {
		count[s[i]]++
	}
	bits := 0.0
	for _, n := range count {
		if share := n / float64(len(s)); n > 0 {
			bits -= share * math.Log2(share)
		}
	}
	return bits > 3
}

var settingsPath = regexp.MustCompile(`^\$\.destinations\[\d+\]\.settings\b`)

// refuseSecrets looks at every string of the file, wherever it stands; key tells that a setting's name says secret.
func (r *reader) refuseSecrets(n *yamlNode, key bool) {
	for _, k := range n.keys {
		if name, part := secret(k.name); name != "" {
			r.conceal(k.name, part)
			r.problemAt(k.position, n.path, "a key of this map holds %s; remove it from the file, and replace it where it is valid", name)
		}
		r.refuseSecrets(k.value, settingsPath.MatchString(k.value.path) && (key || secretKey.MatchString(k.name)))
	}
	for _, item := range n.items {
		r.refuseSecrets(item, key)
	}
	text, ok := n.value.(string)
	if !ok {
		return
	}
	if strings.HasPrefix(text, keyVaultReference) {
		r.problem(n.path, "a Key Vault reference works in an app setting only: move it to the app setting %s and write \"${%s}\" here", r.settingName(n.path), r.settingName(n.path))
		return
	}
	name, part := secret(text)
	literal := !reference.MatchString(text)
	if name == "" && key && literal && (looksRandom(text) || alwaysSecret.MatchString(n.path) && text != "") {
		name, part = "a secret", text
	}
	if name == "" {
		return
	}
	r.conceal(text, part)
	if !settingsPath.MatchString(n.path) {
		r.problem(n.path, "looks like %s, and the file is no place for one: remove it, and replace the secret, since it was in a file", name)
		return
	}
	r.problem(n.path, "looks like %s, and the file is no place for one: write \"${%s}\" here, set the app setting %s to a Key Vault reference, "+
		"@Microsoft.KeyVault(SecretUri=…), and replace the secret, since it was in a file", name, r.settingName(n.path), r.settingName(n.path))
}

// refuseSecretLines looks at what the values do not show: comments, and text that YAML takes apart.
func (r *reader) refuseSecretLines() {
	for i, line := range r.lines {
		name, part := secret(line)
		if name == "" || slices.ContainsFunc(r.hidden, func(h string) bool { return strings.Contains(h, part) }) {
			continue
		}
		r.conceal(part)
		column := utf8.RuneCountInString(line[:max(strings.Index(line, part), 0)]) + 1
		r.problemAt(position{i + 1, column}, "", "this line holds what looks like %s: remove it, and replace the secret, since it was in a file", name)
	}
}

var wordEnd = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// settingName suggests an app setting for the value at path: BILLING_API_KEY.
func (r *reader) settingName(path string) string {
	key := path[strings.LastIndex(path, ".")+1:]
	if i := strings.IndexByte(key, '['); i >= 0 {
		key = key[:i]
	}
	if name, _ := secret(key); name != "" || !plainWord.MatchString(key) {
		key = "secret"
	}
	name := key
	if n := r.nodes[destinationPath.FindString(path)+".name"]; n != nil && n.kind == kindString && plainWord.MatchString(n.value.(string)) {
		name = n.value.(string) + "_" + key
	}
	name = strings.ToUpper(wordEnd.ReplaceAllString(name, "${1}_${2}"))
	return strings.ReplaceAll(name, "-", "_")
}

var plainWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,30}$`)

var destinationPath = regexp.MustCompile(`^\$\.destinations\[\d+\]`)

// conceal keeps values out of all messages, also as Go quotes them. Very short ones are left: no secret is that short,
// and every message would be full of holes.
func (r *reader) conceal(values ...string) {
	for _, v := range values {
		for _, shown := range []string{v, strings.Trim(strconv.Quote(v), `"`), strings.TrimSpace(v)} {
			if len(shown) >= 4 && !slices.Contains(r.hidden, shown) {
				r.hidden = append(r.hidden, shown)
			}
		}
	}
}

// hide takes what must not be shown out of a message.
func (r *reader) hide(message string) string {
	slices.SortStableFunc(r.hidden, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, v := range r.hidden {
		message = strings.ReplaceAll(message, v, "[hidden]")
	}
	for _, f := range secretForms {
		message = f.form.ReplaceAllString(message, "[hidden]")
	}
	return message
}
