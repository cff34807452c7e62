package connector_test

import (
	"net/http"
	"testing"
)

func published(t testing.TB, h http.Handler) http.Handler { return h }
