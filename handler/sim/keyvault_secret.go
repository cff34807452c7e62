package sim

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// versions are those of an object, oldest first; with the certificate ones only, or all.
func (v *KeyVault) versions(c *vaultCall, certificates bool) []*vaultVersion {
	return slices.DeleteFunc(slices.Clone(v.objects[strings.ToLower(c.name)]), func(x *vaultVersion) bool { return certificates && x.certificate == nil })
}

// find is the version that a call names; nil if there is none.
func (v *KeyVault) find(c *vaultCall, certificates bool) *vaultVersion {
	all := v.versions(c, certificates)
	if c.id != "" {
		all = slices.DeleteFunc(all, func(x *vaultVersion) bool { return !strings.EqualFold(x.id, c.id) })
	}
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// url is the address of a version, by the host that the client called.
func (c *vaultCall) url(kind, id string) string {
	return "https://" + c.request.Host + "/" + kind + "/" + c.name + "/" + id
}

// attributes are those of a version; certificates give theirs to the secret and the key.
func (x *vaultVersion) attributes() map[string]any {
	a := map[string]any{"enabled": !x.disabled, "created": x.made.Unix(), "updated": x.changed.Unix(),
		"recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90}
	if x.certificate != nil {
		a["nbf"], a["exp"] = x.certificate.Chain[0].NotBefore.Unix(), x.certificate.Chain[0].NotAfter.Unix()
	}
	return a
}

// secretItem is a secret without its value.
func (x *vaultVersion) secretItem(c *vaultCall) map[string]any {
	item := map[string]any{"id": c.url("secrets", x.id), "attributes": x.attributes()}
	if x.contentType != "" {
		item["contentType"] = x.contentType
	}
	if x.certificate != nil {
		item["managed"] = true
	}
	return item
}

// getSecret (docs: Get Secret). Expired secrets and those that are not valid yet can be read (docs: About Azure Key Vault
// secrets, date-time controlled operations); a disabled one cannot, and stands in the way of the older ones.
func (v *KeyVault) getSecret(c *vaultCall) vaultReply {
	x := v.find(c, false)
	switch {
	case x == nil:
		return c.missing("secret")
	case x.disabled:
		return refuseVault(http.StatusForbidden, "Forbidden", "SecretDisabled", "Operation get is not allowed on a disabled secret.")
	}
	body := x.secretItem(c)
	body["value"] = x.value
	if x.certificate != nil {
		body["kid"] = c.url("keys", x.id)
	}
	return vaultReply{http.StatusOK, body}
}

// listSecretVersions (docs: Get Secret Versions). A secret that does not exist has no versions, and that is no error.
func (v *KeyVault) listSecretVersions(c *vaultCall) vaultReply {
	return c.page(v.versions(c, false), (*vaultVersion).secretItem)
}

// vaultPage is the most that a page holds, and what it holds when the caller says nothing.
const vaultPage = 25

// page shows versions in the order of their ids, which is not that of their age. As in the published example, the link
// to the next page has a port.
func (c *vaultCall) page(all []*vaultVersion, item func(*vaultVersion, *vaultCall) map[string]any) vaultReply {
	q := c.request.URL.Query()
	size := vaultPage
	if s := q.Get("maxresults"); s != "" {
		var err error
		if size, err = strconv.Atoi(s); err != nil || size < 1 || size > vaultPage {
			return badParameter("The value of maxresults must be between 1 and 25.") // the wording is not published
		}
	}
	var token struct{ NextMarker string }
	if s := q.Get("$skiptoken"); s != "" {
		raw, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil || json.Unmarshal(raw, &token) != nil {
			return badParameter("The value of $skiptoken is not valid.") // likewise
		}
	}
	slices.SortFunc(all, func(a, b *vaultVersion) int { return strings.Compare(a.id, b.id) })
	all = slices.DeleteFunc(all, func(x *vaultVersion) bool { return x.id < token.NextMarker })
	body := map[string]any{"nextLink": nil}
	if len(all) > size {
		token.NextMarker = all[size].id
		host := c.request.Host
		if !strings.Contains(host, ":") {
			host += ":443"
		}
		body["nextLink"] = "https://" + host + strings.TrimSuffix(c.request.URL.Path, "/") + "?api-version=" + url.QueryEscape(q.Get("api-version")) +
			"&$skiptoken=" + base64.RawURLEncoding.EncodeToString(mustJSON(token)) + "&maxresults=" + strconv.Itoa(size)
		all = all[:size]
	}
	items := []map[string]any{}
	for _, x := range all {
		items = append(items, item(x, c))
	}
	body["value"] = items
	return vaultReply{http.StatusOK, body}
}
