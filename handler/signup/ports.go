package signup

import (
	"context"
	"iter"
	"time"
)

// Detector sees sign-ups in one place of the tenant.
type Detector interface {
	// Name is "audit", "directory", "signUps" or "backstop"; it is in the ledger.
	Name() string
	// Events yields what happened in w, in any order; duplicates, and events just outside of w, are possible. The
	// first error ends it, and then the events before it are not the whole window. A record that cannot be decoded,
	// in a page that can, is logged and counted by the detector and is no error.
	Events(ctx context.Context, w Window) iter.Seq2[Event, error]
	// Served is the service's own time (its Date header, to the second) of the first answer of the latest Events:
	// what it has shown cannot be newer. It is zero while the service has not said.
	Served() time.Time
	// Retention is how far back this place can be read; 0 means without limit.
	Retention() time.Duration
}

// Directory is the tenant's users.
type Directory interface {
	// Users reads at most 15 profiles in one call. An id that is absent from the answer is confirmed absent: a read by
	// that id said so. After an error the map is nil.
	Users(ctx context.Context, ids []UserID) (map[UserID]User, error)
	// Update changes a user's record; the same patch again changes nothing. A user principal name that somebody else
	// has is an *Error with code "upn-taken", and then nothing of the patch was applied.
	Update(ctx context.Context, id UserID, p Patch) error
}

// Entitlements is what entitlement management knows of guests.
type Entitlements interface {
	// Requested reports that a request for an access package, which was not refused, is older than the user's account and
	// was still open when that came into being. It may say no for some minutes after that.
	Requested(ctx context.Context, u User) (bool, error)
}

// Request asks a connector for one user's account.
type Request struct {
	Tenant        string // the tenant's id, a GUID
	User          UserID
	Destination   string         // the destination's name in the configuration
	Key           string         // idempotency key of (tenant, user, destination, generation): 64 hexadecimal digits
	Unsure        bool           // an earlier call may have taken effect: look before creating
	Spent         time.Time      // since when the key is known to be spent, by an answer "key-settling"; zero if it is not
	Known         string         // an account id found on the user's record, "" if none: to be used only once confirmed
	Created       time.Time      // when the user signed up
	Origin        Origin         //
	Email         string         // the user's contact address, "" if there is none
	EmailVerified bool           // the tenant has verified Email
	Record        map[string]any // the mapped record: string, bool, int, float64, []any, map[string]any
}

// Account is what a destination has for a user.
type Account struct {
	ID      string // the destination's own id; never derived from an e-mail address; at most 250 characters
	Created bool   // this call made it; false if it was there before. A hint for the counts only
}

// Connector brings users into one outside system.
type Connector interface {
	// Associate makes sure that the system holds exactly one account for req.User and returns it. It may be called again
	// after any failure with the same key, also at the same time; req.Unsure says that an earlier call may have taken
	// effect, and then it looks before it creates. A look-up that failed is an error, never "not found". Errors are
	// *Error; one without a class is transient. When the idempotency key itself is spent (its stored answer is a
	// failure, or belongs to another body) and look-ups cannot yet show whether there is an account, the error has code
	// "key-settling"; once they have shown that there is none it has code "key-spent", and the next call comes with the key
	// of the next generation. While the system works on what it has accepted the error is transient with code "in-progress",
	// and a further call looks how far it is.
	Associate(ctx context.Context, req Request) (Account, error)
	// Check tries reachability, credentials and settings, and changes nothing.
	Check(ctx context.Context) error
}

// Result is one user's outcome of AssociateAll.
type Result struct {
	Account Account
	Err     error
}

// Batcher is a Connector that can take the users of one profile read (at most 15) in one call.
type Batcher interface {
	// AssociateAll answers each request, in order, as Associate would have. If the call as a whole has failed, Err is the
	// same value for everyone, so that it counts as one failure of the destination.
	AssociateAll(ctx context.Context, reqs []Request) []Result
}

// Ledger keeps the rows and notes: compare-and-swap and nothing clever. Errors other than those named here mean that
// the outcome of a write is unknown to the caller.
type Ledger interface {
	// Insert adds the rows whose user is new and returns those, with their versions; existing rows are left alone.
	Insert(ctx context.Context, rows []Row) ([]Row, error)
	// Get returns the rows of those users that have one, in the order of ids.
	Get(ctx context.Context, ids []UserID) ([]Row, error)
	// Replace writes the rows over the versions they carry and returns those written, with their new versions, in
	// order. If some were changed by someone else the others are still written, and the error is ErrConflict.
	Replace(ctx context.Context, rows []Row) ([]Row, error)
	// Due yields the rows whose Due is not zero and not after by, earliest first. Its cost does not grow with the
	// number of settled rows.
	Due(ctx context.Context, by time.Time) iter.Seq2[Row, error]
	// All yields every row, in no particular order.
	All(ctx context.Context) iter.Seq2[Row, error]
	// Note reads a note; one that was never written has no Body and no Version.
	Note(ctx context.Context, name string) (Note, error)
	// PutNote writes a note over the version it carries ("" = there is none yet) and returns it with its new version;
	// ErrConflict if that version is not the current one.
	PutNote(ctx context.Context, n Note) (Note, error)
}

// Note is a small named document beside the rows: a watermark, the run lease, a summary.
type Note struct {
	Name    string // [0-9a-z|:.-], at most 100 characters
	Body    []byte // JSON, at most 30,000 bytes
	Version string
}
