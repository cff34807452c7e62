package sim

import "embed"

// Samples are published answers of Microsoft Graph, as they are, in testdata/: rows of the audit log and the sign-up
// log, a user, errors, policies. Each file's origin is in the README beside it.
//
//go:embed testdata
var Samples embed.FS
