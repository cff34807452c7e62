package ledger

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"signup-sync/handler/signup"
)

var (
	errNoTable = errors.New("there is no such table")
	errAbsent  = errors.New("there is no such entity")
)

// ignoreAbsent makes nothing of an answer that says that there is no such table or entity.
func ignoreAbsent(err error) error {
	if errors.Is(err, errNoTable) || errors.Is(err, errAbsent) {
		return nil
	}
	return err
}

// answer is what the service says to one operation of a transaction.
type answer struct {
	status int
	etag   string
	code   string // of an error: EntityAlreadyExists, …
	index  string // of an error: which operation it was
}

var (
	etagHeader  = regexp.MustCompile(`(?im)^etag:[ \t]*(\S.*?)[ \t]*\r?$`)
	errorCode   = regexp.MustCompile(`"code"\s*:\s*"([^"]+)"`)
	errorIndex  = regexp.MustCompile(`"value"\s*:\s*"(\d+):`)
	answerStart = regexp.MustCompile(`(?m)^HTTP/1\.1 (\d{3})`)
)

// parseAnswers reads the multipart body that answers a transaction: after a success one answer an operation, in order;
// after a failure one for the operation that failed.
// https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions#sample-error-response
func parseAnswers(body string) []answer {
	var answers []answer
	starts := answerStart.FindAllStringSubmatchIndex(body, -1)
	for i, m := range starts {
		end := len(body)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		part := body[m[0]:end]
		status, _ := strconv.Atoi(body[m[2]:m[3]]) // three digits
		answers = append(answers, answer{
			status: status,
			etag:   submatch(etagHeader, part),
			code:   submatch(errorCode, part),
			index:  submatch(errorIndex, part),
		})
	}
	return answers
}

func submatch(re *regexp.Regexp, s string) string {
	if m := re.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

// failure is the error of an operation whose status is 400 or above: errRefused, errNoTable, or one that tells all.
func (a answer) failure(table string) error {
	switch aztables.TableErrorCode(a.code) {
	case aztables.EntityAlreadyExists, aztables.UpdateConditionNotSatisfied, aztables.ResourceNotFound, entityNotFound:
		return errRefused
	case aztables.TableNotFound:
		return errNoTable
	}
	return fmt.Errorf("write to the table %s, operation %s: %w", table, a.index, serviceError(a.status, a.code, nil))
}

// entityNotFound is in the service's list of error codes, though not in the SDK's.
const entityNotFound aztables.TableErrorCode = "EntityNotFound"

// failure makes an error of the SDK's readable: errNoTable and errAbsent by code, never by status alone, since a proxy
// answers 404 too. The text has the status and the service's code, or a word for what broke, and nothing else: the
// request's URL may hold a shared access signature, and what a token endpoint or a proxy says may be anything. A
// credential's own *signup.Error is passed on.
func failure(verb, table string, err error) error {
	if err == nil {
		return fmt.Errorf("%s the table %s: the SDK took an answer for a success that is none", verb, table)
	}
	if re, ok := errors.AsType[*azcore.ResponseError](err); ok {
		switch aztables.TableErrorCode(re.ErrorCode) {
		case aztables.TableNotFound:
			return errNoTable
		case aztables.ResourceNotFound, entityNotFound:
			return errAbsent
		}
		return fmt.Errorf("%s the table %s: %w", verb, table, serviceError(re.StatusCode, re.ErrorCode, err))
	}
	if known, ok := errors.AsType[*signup.Error](err); ok {
		return fmt.Errorf("%s the table %s: %w", verb, table, known)
	}
	return fmt.Errorf("%s the table %s: %w", verb, table, &signup.Error{Class: signup.Transient, Code: "unreachable", Detail: trouble(err), Err: err})
}

// trouble says why there is no answer.
func trouble(err error) string {
	var (
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		timeout net.Error
	)
	switch {
	case errors.As(err, &dns):
		return "the account's name cannot be resolved"
	case errors.As(err, &cert):
		return "the server's certificate is not trusted"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection is refused"
	case errors.Is(err, context.Canceled):
		return "the call was broken off"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return "the connection failed, or there is no token for it"
}

// codeWord is what the service's codes look like.
var codeWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{1,63}$`)

func serviceError(status int, code string, err error) *signup.Error {
	class, word, ok := signup.StatusClass(status)
	if !ok {
		class, word = signup.Transient, "unavailable"
	}
	if !codeWord.MatchString(code) {
		code = ""
	}
	detail := code
	if status == http.StatusForbidden {
		detail = strings.TrimSpace(code + " (" + permit(code) + ")")
	}
	return &signup.Error{Class: class, Code: word, Detail: detail, Status: status, Err: err}
}

// permit says what helps against a 403, by the service's code.
func permit(code string) string {
	const role = "give the identity the role Storage Table Data Contributor on the storage account"
	switch code {
	case "AuthorizationPermissionMismatch":
		return role + "; a shared access signature must allow to read, add, update and delete"
	case "AuthenticationFailed":
		return "check the key in AzureWebJobsStorage, and this machine's clock"
	case "KeyBasedAuthenticationNotPermitted":
		return "the storage account takes no keys: set AzureWebJobsStorage__accountName in place of AzureWebJobsStorage"
	case "AuthorizationFailure":
		return "the storage account's network rules keep this machine out, or the key in AzureWebJobsStorage is wrong"
	}
	return "check the key in AzureWebJobsStorage, or " + role
}
