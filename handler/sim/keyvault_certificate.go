package sim

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
)

// Certificate is a version of a certificate to be put into a vault.
type Certificate struct {
	Key   crypto.Signer       // the private key
	Chain []*x509.Certificate // the certificate first, and those above it

	ContentType   string // of the secret; "" = application/x-pkcs12, or application/x-pem-file
	Secret        string // the secret's value, if the caller has encoded it (encryption and chain are its choice); "" = made here
	NonExportable bool   // the private key never leaves the vault, and Secret is not used
}

// The content types of a certificate's secret.
const (
	typePFX = "application/x-pkcs12"
	typePEM = "application/x-pem-file"
)

// AddCertificate adds a version of a certificate with its key and its secret, which are then the latest, and returns the id
// that the three share. The secret of a non-exportable one holds the certificates and no private key, in the format of the
// content type: that "the private key isn't a part of the value" is published (docs: About Azure Key Vault certificates,
// exportable or non-exportable key), how the rest is encoded is not. PKCS #12 made here is neither encrypted nor signed.
func (v *KeyVault) AddCertificate(name string, c Certificate) string {
	setDefault(&c.ContentType, typePFX)
	key := c.Key
	if c.NonExportable {
		key, c.Secret = nil, ""
	}
	switch {
	case c.Secret != "":
	case c.ContentType == typePEM:
		c.Secret = encodePEM(key, c.Chain)
	default:
		c.Secret = base64.StdEncoding.EncodeToString(encodePFX(key, c.Chain))
	}
	return v.add(name, &vaultVersion{contentType: c.ContentType, value: c.Secret, certificate: &c})
}

// encodePEM writes the private key, if there is one, and the certificates.
func encodePEM(key crypto.Signer, chain []*x509.Certificate) string {
	var b bytes.Buffer
	if key != nil {
		_ = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: mustDER(x509.MarshalPKCS8PrivateKey(key))})
	}
	for _, c := range chain {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.String()
}

// The parts of a PKCS #12 file (RFC 7292, section 4).
type (
	pfx struct {
		Version  int
		AuthSafe contentInfo
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content []byte `asn1:"tag:0,explicit"`
	}
	safeBag struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	certBag struct {
		ID   asn1.ObjectIdentifier
		Data []byte `asn1:"tag:0,explicit"`
	}
)

// encodePFX writes an unencrypted PKCS #12 file without a MAC: the certificates, and the private key if there is one.
func encodePFX(key crypto.Signer, chain []*x509.Certificate) []byte {
	data := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	bag := func(kind int, der []byte) safeBag {
		return safeBag{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, kind},
			asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}}
	}
	var certs []safeBag
	for _, c := range chain {
		certs = append(certs, bag(3, mustDER(asn1.Marshal(certBag{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}, c.Raw}))))
	}
	safe := []contentInfo{{data, mustDER(asn1.Marshal(certs))}}
	if key != nil {
		safe = append(safe, contentInfo{data, mustDER(asn1.Marshal([]safeBag{bag(1, mustDER(x509.MarshalPKCS8PrivateKey(key)))}))})
	}
	return mustDER(asn1.Marshal(pfx{3, contentInfo{data, mustDER(asn1.Marshal(safe))}}))
}

// mustDER is for what always marshals.
func mustDER(der []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return der
}

// certificateItem is a certificate in a list.
func (x *vaultVersion) certificateItem(c *vaultCall) map[string]any {
	print := sha1.Sum(x.certificate.Chain[0].Raw)
	return map[string]any{"id": c.url("certificates", x.id), "x5t": base64.RawURLEncoding.EncodeToString(print[:]), "attributes": x.attributes(), "subject": ""}
}

func (v *KeyVault) listCertificateVersions(c *vaultCall) vaultReply {
	return c.page(v.versions(c, true), (*vaultVersion).certificateItem)
}

// getCertificate (docs: Get Certificate). A disabled one is shown. The policy, which says whether the key can be exported,
// comes with the latest version only, as recorded from the service; with another one come some fields of the certificate.
func (v *KeyVault) getCertificate(c *vaultCall) vaultReply {
	x := v.find(c, true)
	if x == nil {
		return c.missing("certificate")
	}
	leaf := x.certificate.Chain[0]
	body := x.certificateItem(c)
	delete(body, "subject")
	body["kid"], body["sid"] = c.url("keys", x.id), c.url("secrets", x.id)
	body["cer"] = base64.StdEncoding.EncodeToString(leaf.Raw)
	if c.id != "" {
		body["subject"], body["issuer"], body["sans"] = leaf.Subject.String(), leaf.Issuer.String(), map[string]any{}
		body["serialnumber"] = fmt.Sprintf("%X", leaf.SerialNumber)
		return vaultReply{http.StatusOK, body}
	}
	kind, size := "EC", 256
	if k, isRSA := leaf.PublicKey.(*rsa.PublicKey); isRSA {
		kind, size = "RSA", k.N.BitLen()
	}
	body["policy"] = map[string]any{
		"id":           c.url("certificates", "policy"),
		"key_props":    map[string]any{"exportable": !x.certificate.NonExportable, "kty": kind, "key_size": size, "reuse_key": false},
		"secret_props": map[string]any{"contentType": x.contentType},
		"x509_props": map[string]any{"subject": leaf.Subject.String(), "sans": map[string]any{}, "key_usage": []string{"digitalSignature"},
			"validity_months": 12, "basic_constraints": map[string]any{"ca": false}},
		"lifetime_actions": []any{map[string]any{"trigger": map[string]any{"lifetime_percentage": 80}, "action": map[string]any{"action_type": "AutoRenew"}}},
		"issuer":           map[string]any{"name": "Self"},
		"attributes":       map[string]any{"enabled": true, "created": x.made.Unix(), "updated": x.made.Unix()},
	}
	body["pending"] = map[string]any{"id": c.url("certificates", "pending")}
	return vaultReply{http.StatusOK, body}
}

// signHashes are the hashes of the algorithms that an RSA key signs with (docs: Sign, JsonWebKeySignatureAlgorithm). Those
// of elliptic keys are not simulated: Entra takes none of them.
var signHashes = map[string]crypto.Hash{"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512,
	"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512}

// sign (docs: Sign). What a disabled key is answered is published, and so is that an expired key, or one that is not valid
// yet, signs nothing (docs: About keys, date-time controlled operations); the inner codes of the latter two are guesses.
func (v *KeyVault) sign(c *vaultCall) vaultReply {
	x := v.find(c, true)
	if x == nil {
		return c.missing("key")
	}
	leaf := x.certificate.Chain[0]
	forbidden := func(inner, why string) vaultReply {
		return refuseVault(http.StatusForbidden, "Forbidden", inner, "Operation sign is not "+why)
	}
	switch {
	case x.disabled:
		return forbidden("KeyDisabled", "allowed on a disabled key.")
	case c.now.Before(leaf.NotBefore):
		return forbidden("KeyNotYetValid", "allowed on a key that is not yet valid.")
	case c.now.After(leaf.NotAfter):
		return forbidden("KeyExpired", "allowed on an expired key.")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return forbidden("KeyOperationForbidden", "permitted on this key.")
	}
	var in struct{ Alg, Value string }
	if json.Unmarshal(c.body, &in) != nil {
		return badParameter("The request body is not a valid JSON object.") // the wording is not published
	}
	digest, err := base64.RawURLEncoding.DecodeString(in.Value)
	hash, known := signHashes[in.Alg]
	if err != nil || !known {
		return badParameter("Property has invalid value\r\n")
	}
	key, isRSA := x.certificate.Key.(*rsa.PrivateKey)
	switch {
	case !isRSA:
		return badParameter("Key and signing algorithm are incompatible. Key " + c.url("keys", x.id) +
			" is of type 'EC', and algorithm '" + in.Alg + "' can only be used with a key of type 'RSA' or 'RSA-HSM'.")
	case len(digest) != hash.Size():
		return badParameter(fmt.Sprintf("Invalid length of 'value': %d bytes. %s requires %d bytes, encoded with base64url.", len(digest), in.Alg, hash.Size()))
	}
	var options crypto.SignerOpts = hash
	if strings.HasPrefix(in.Alg, "PS") {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	signature := mustDER(key.Sign(rand.Reader, digest, options))
	return vaultReply{http.StatusOK, map[string]any{"kid": c.url("keys", x.id), "value": base64.RawURLEncoding.EncodeToString(signature)}}
}
