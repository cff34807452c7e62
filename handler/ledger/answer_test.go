package ledger

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
)

func rowsOf(ids ...signup.UserID) []signup.Row {
	var rows []signup.Row
	for _, id := range ids {
		rows = append(rows, signup.Row{User: id, Due: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)})
	}
	return rows
}

// crlf makes a text what it is on the wire.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// TestAnswersOfTheService reads the service's documented answers, which the emulator's are not quite.
// https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
func TestAnswersOfTheService(t *testing.T) {
	done := crlf(`--batchresponse_e69b1c6c-62ff-471e-ab88-9a4aeef0ab30
Content-Type: multipart/mixed; boundary=changesetresponse_a6253244-7e21-42a8-a149-479ee9e94a25

--changesetresponse_a6253244-7e21-42a8-a149-479ee9e94a25
Content-Type: application/http
Content-Transfer-Encoding: binary

HTTP/1.1 204 No Content
X-Content-Type-Options: nosniff
Cache-Control: no-cache
DataServiceVersion: 1.0;
ETag: W/"datetime'2013-04-30T21%3A40%3A34.4374834Z'"

--changesetresponse_a6253244-7e21-42a8-a149-479ee9e94a25
Content-Type: application/http
Content-Transfer-Encoding: binary

HTTP/1.1 204 No Content
DataServiceVersion: 1.0;

--changesetresponse_a6253244-7e21-42a8-a149-479ee9e94a25--
--batchresponse_e69b1c6c-62ff-471e-ab88-9a4aeef0ab30--
`)
	want := []answer{{status: 204, etag: `W/"datetime'2013-04-30T21%3A40%3A34.4374834Z'"`}, {status: 204}}
	if d := cmp.Diff(want, parseAnswers(done), cmp.AllowUnexported(answer{})); d != "" {
		t.Errorf("success (-want +got):\n%s", d)
	}
	failed := crlf(`--batchresponse_1
Content-Type: multipart/mixed; boundary=changesetresponse_2

--changesetresponse_2
Content-Type: application/http
Content-Transfer-Encoding: binary

HTTP/1.1 409 Conflict
DataServiceVersion: 3.0;
Content-Type: application/json;odata=minimalmetadata;streaming=true;charset=utf-8

{"odata.error":{"code":"EntityAlreadyExists","message":{"lang":"en-US","value":"51:The specified entity already exists.\nRequestId:1\nTime:2"}}}
--changesetresponse_2--
--batchresponse_1--
`)
	want = []answer{{status: 409, code: "EntityAlreadyExists", index: "51"}}
	if d := cmp.Diff(want, parseAnswers(failed), cmp.AllowUnexported(answer{})); d != "" {
		t.Errorf("failure (-want +got):\n%s", d)
	}
	if got := parseAnswers(`{"odata.error":{"code":"InvalidInput"}}`); len(got) != 0 {
		t.Errorf("an answer that is not multipart: got %v, want none", got)
	}
}

func TestAnswersBecomeErrors(t *testing.T) {
	for code, want := range map[string]error{"EntityAlreadyExists": errRefused, "UpdateConditionNotSatisfied": errRefused,
		"ResourceNotFound": errRefused, "EntityNotFound": errRefused, "TableNotFound": errNoTable} {
		if got := (answer{status: 400, code: code}).failure(signups); !errors.Is(got, want) {
			t.Errorf("%s: got %v, want %v", code, got, want)
		}
	}
	err := answer{status: 400, code: "PropertyValueTooLarge", index: "3"}.failure(signups)
	if want := "write to the table signups, operation 3: rejected (HTTP 400): PropertyValueTooLarge"; err.Error() != want {
		t.Errorf("another code:\ngot  %v\nwant %s", err, want)
	}
	err = answer{status: 503, code: "ServerBusy", index: "0"}.failure(signups)
	if got, want := signup.ClassOf(err), signup.Transient; got != want {
		t.Errorf("class of a busy server: got %v, want %v", got, want)
	}
}
