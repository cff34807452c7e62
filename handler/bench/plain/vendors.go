package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// vendors are the systems that a user is brought into, by plain HTTP.
type vendors struct {
	http                                       *http.Client
	stripe, stripeKey                          string
	mailchimp, mailchimpKey, audience          string
	salesforce, salesforceID, salesforceSecret string
	session                                    string // at Salesforce, for a run
}

func (v *vendors) createCustomer(ctx context.Context, u user) (string, error) {
	form := url.Values{"email": {u.email}, "name": {u.givenName + " " + u.surname}, "metadata[entra_object_id]": {u.id}}
	var made struct{ ID string }
	err := v.post(ctx, v.stripe+"/v1/customers", v.stripeKey, form, &made)
	return made.ID, err
}

func (v *vendors) createContact(ctx context.Context, u user) (string, error) {
	body := map[string]any{"email_address": u.email, "status": "subscribed", "merge_fields": map[string]string{"FNAME": u.givenName, "LNAME": u.surname}}
	var made struct {
		ContactID string `json:"contact_id"`
	}
	err := v.post(ctx, v.mailchimp+"/3.0/lists/"+v.audience+"/members", v.mailchimpKey, body, &made)
	return made.ContactID, err
}

func (v *vendors) createRecord(ctx context.Context, u user) (string, error) {
	if v.session == "" {
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {v.salesforceID}, "client_secret": {v.salesforceSecret}}
		var granted struct {
			AccessToken string `json:"access_token"`
		}
		if err := v.post(ctx, v.salesforce+"/services/oauth2/token", "", form, &granted); err != nil {
			return "", err
		}
		v.session = granted.AccessToken
	}
	body := map[string]string{"FirstName": u.givenName, "LastName": u.surname, "Email": u.email, "Entra_Object_Id__c": u.id}
	var made struct{ ID string }
	err := v.post(ctx, v.salesforce+"/services/data/v62.0/sobjects/Contact", v.session, body, &made)
	return made.ID, err
}

// post sends a form or JSON and reads the answer.
func (v *vendors) post(ctx context.Context, address, key string, body, answer any) error {
	kind, content := "application/json", []byte(nil)
	if form, ok := body.(url.Values); ok {
		kind, content = "application/x-www-form-urlencoded", []byte(form.Encode())
	} else {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(content))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answered %s: %s", req.URL.Path, resp.Status, strings.TrimSpace(string(text)))
	}
	return json.Unmarshal(text, answer)
}
