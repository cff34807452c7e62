package sim

import (
	"math/rand/v2"
	"time"

	"signup-sync/handler/signup"
)

// signUpRow is a selfServiceSignUp (docs: selfServiceSignUp resource, beta).
type signUpRow struct {
	AppDisplayName         *string        `json:"appDisplayName"`
	AppID                  string         `json:"appId"`
	CorrelationID          string         `json:"correlationId"`
	CreatedDateTime        string         `json:"createdDateTime"`
	ID                     string         `json:"id"`
	SignUpStage            string         `json:"signUpStage"`
	SignUpIdentityProvider string         `json:"signUpIdentityProvider"`
	AppliedEventListeners  []any          `json:"appliedEventListeners"`
	Status                 signUpStatus   `json:"status"`
	SignUpIdentity         signUpIdentity `json:"signUpIdentity"`
	UserID                 *signup.UserID `json:"userId"`
}

type signUpStatus struct {
	ErrorCode         int     `json:"errorCode"`
	FailureReason     *string `json:"failureReason"`
	AdditionalDetails *string `json:"additionalDetails"`
}

type signUpIdentity struct {
	Identifier string `json:"signUpIdentifier"`
	Type       string `json:"signUpIdentifierType"`
}

// logSignUp writes a sign-up's rows into the sign-up log: one for each stage, with one correlation id; the user's id is
// in the last one only. Users who were made by others leave none. Some rows are published a
// second time, as audit rows are.
func (t *Tenant) logSignUp(p Person, id signup.UserID, now time.Time, chance *rand.Rand) {
	switch p.How {
	case Email, Social, Failed:
	case Native:
		if !t.o.NativeSignUps {
			return
		}
	default:
		return
	}
	row := signUpRow{AppID: "94559aba-b733-468e-aaec-44cc4e7f0b58", CorrelationID: guid(chance),
		SignUpIdentityProvider: "Email OTP", AppliedEventListeners: []any{}, SignUpIdentity: signUpIdentity{p.Email, "emailAddress"}}
	first := "credentialCollection"
	if p.How == Social {
		first, row.SignUpIdentityProvider, row.SignUpIdentity.Type = "credentialFederation", p.IdP, "federation"
	}
	stage := func(name string, code int, before time.Duration) {
		row.ID, row.SignUpStage, row.Status.ErrorCode = guid(chance), name, code
		row.CreatedDateTime = now.Add(-before).UTC().Format("2006-01-02T15:04:05.000000Z")
		rec := newRecord(mustJSON(row), "createdDateTime", now)
		rec.shown = now.Add(t.lag(chance, p))
		t.signUps.add(rec)
		if chance.Float64() < t.o.Duplicates {
			if chance.IntN(2) == 0 {
				row.ID = guid(chance)
			}
			again := newRecord(mustJSON(row), "createdDateTime", now)
			again.shown = now.Add(t.lag(chance, p))
			t.signUps.add(again)
		}
	}
	stage(first, 0, 33*time.Second)
	row.AppDisplayName = new("TestApp4")
	if p.How != Social {
		stage("credentialValidation", 1002013, 20*time.Second)
	}
	if p.How == Failed {
		row.Status.FailureReason = new("User creation failed.")
		stage("attributeCollectionAndValidation", 0, time.Second)
		stage("userCreation", 399279, 0)
		return
	}
	stage("attributeCollectionAndValidation", 0, time.Second)
	row.UserID = &id
	stage("userCreation", 0, 0)
}
