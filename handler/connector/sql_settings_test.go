package connector_test

import (
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
)

func TestAnotherMachineIsSpokenToOverTLS(t *testing.T) {
	const disabled = "sslmode must be require, verify-ca or verify-full for another machine"
	const password = "holds a password, and settings.auth is entra; use one of them"
	tests := []struct {
		driver, dsn, auth string
		want              []string
		wrong             string
	}{
		{"postgres", "host=db.example.com user=a", "", []string{"tls"}, ""},
		{"postgres", "postgres://a:b@db.example.com/crm?sslmode=prefer", "", []string{"tls"}, ""},
		{"postgres", "host=db.example.com sslmode=allow", "", []string{"tls"}, ""},
		{"postgres", "host=db.example.com sslmode=require", "", []string{"tls"}, ""},
		{"postgres", "host=db.example.com sslmode=verify-ca", "", []string{"verified"}, ""},
		{"postgres", "host=db.example.com sslmode=verify-full", "", []string{"verified db.example.com"}, ""},
		{"postgres", "host=db.example.com sslmode=disable", "", nil, disabled},
		{"postgres", "host=one.example.com,two.example.com", "", []string{"tls", "tls"}, ""},
		{"postgres", "host=db.example.com user=a", "entra", []string{"verified db.example.com"}, ""},
		{"postgres", "host=db.example.com user=a sslmode=require", "entra", []string{"verified db.example.com"}, ""},
		{"postgres", "host=db.example.com user=a password=b", "entra", nil, password},
		{"postgres", "host=127.0.0.1", "", []string{"tls", "plain"}, ""},
		{"postgres", "host=localhost sslmode=disable", "", []string{"plain"}, ""},
		{"postgres", "host=/run/postgresql", "", []string{"plain"}, ""},
		{"mysql", "a:b@tcp(db.example.com)/crm", "", []string{"verified"}, ""},
		{"mysql", "a:b@tcp(db.example.com:3307)/crm?tls=true", "", []string{"verified db.example.com"}, ""},
		{"mysql", "a:b@tcp(db.example.com)/crm?tls=skip-verify", "", []string{"tls"}, ""},
		{"mysql", "a:b@tcp(db.example.com)/crm?tls=preferred", "", []string{"tls"}, ""},
		{"mysql", "a:b@tcp(db.example.com)/crm?allowFallbackToPlaintext=true", "", []string{"verified"}, ""},
		{"mysql", "a:b@tcp(db.example.com)/crm?tls=false", "", nil, "tls must be true or skip-verify for another machine"},
		{"mysql", "a@tcp(db.example.com)/crm", "entra", []string{"verified, password in clear"}, ""},
		{"mysql", "a@tcp(db.example.com)/crm?tls=skip-verify", "entra", []string{"verified db.example.com, password in clear"}, ""},
		{"mysql", "a:b@tcp(db.example.com)/crm", "entra", nil, password},
		{"mysql", "a@tcp(127.0.0.1:3306)/crm?allowCleartextPasswords=true", "entra", []string{"plain"}, ""},
		{"mysql", "a:b@tcp(127.0.0.1:3306)/crm?tls=preferred", "", []string{"tls or plain"}, ""},
		{"mysql", "a:b@unix(/run/mysqld/mysqld.sock)/crm", "", []string{"plain"}, ""},
		{"mysql", "a:b@tcp(127.0.0.1:3306)/crm?multiStatements=true", "", nil, "must not allow multiStatements"},
	}
	for _, tt := range tests {
		got, err := connector.Connections(tt.driver, tt.dsn, tt.auth)
		if diff := cmp.Diff(got, tt.want); diff != "" {
			t.Errorf("%s, %s: (-got +want):\n%s", tt.dsn, tt.auth, diff)
		}
		if (err == nil) != (tt.wrong == "") || err != nil && err.Error() != tt.wrong {
			t.Errorf("%s, %s: got %v, want %q", tt.dsn, tt.auth, err, tt.wrong)
		}
	}
}

func TestMySQLIsToldHowToBehave(t *testing.T) {
	c, err := connector.MySQLConfig("a:b@/crm?sql_mode=%27%27&interpolateParams=true&allowAllFiles=true&clientFoundRows=false&SQL_Mode=%27ANSI_QUOTES%27&Time_Zone=%27SYSTEM%27")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.Params, map[string]string{"sql_mode": "'TRADITIONAL'", "time_zone": "'SYSTEM'"}); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if _, silent := c.Logger.(*mysql.NopLogger); !silent || c.InterpolateParams || c.AllowAllFiles || !c.ClientFoundRows || !c.RejectReadOnly {
		t.Errorf("logger %T, interpolates %t, reads files %t, counts found rows %t, leaves a read-only server %t", c.Logger, c.InterpolateParams, c.AllowAllFiles, c.ClientFoundRows, c.RejectReadOnly)
	}
}

func TestDatabaseErrorCodes(t *testing.T) {
	postgres := map[string]string{
		"40001": "transient busy", "40P01": "transient busy", "55P03": "transient busy", "08006": "transient unavailable", "57P01": "transient unavailable",
		"57P03": "transient unavailable", "57014": "transient unavailable", "53300": "transient unavailable", "25006": "transient unavailable", "XX000": "transient unavailable",
		"23505": "permanent conflict", "22P02": "permanent data", "22001": "permanent data", "P0001": "permanent data", "44000": "permanent data",
		"42P01": "permanent schema", "42703": "permanent schema", "42P10": "permanent schema", "3F000": "permanent schema", "55000": "permanent schema", "42601": "permanent schema",
		"42501": "systemic forbidden", "28P01": "systemic unauthorized", "28000": "systemic unauthorized", "3D000": "systemic no-database",
	}
	for code, want := range postgres {
		if got := connector.JudgePostgres(code); got.Class.String()+" "+got.Code != want {
			t.Errorf("postgres %s: got %s %s, want %s", code, got.Class, got.Code, want)
		}
	}
	numbers := []struct {
		number uint16
		state  string
		want   string
	}{
		{1205, "HY000", "transient busy"}, {1213, "40001", "transient busy"}, {1040, "08004", "transient unavailable"}, {1053, "08S01", "transient unavailable"},
		{1317, "70100", "transient unavailable"}, {1226, "42000", "transient unavailable"}, {1203, "42000", "transient unavailable"}, {1047, "08S01", "transient unavailable"},
		{1062, "23000", "permanent conflict"}, {1048, "23000", "permanent data"}, {1364, "HY000", "permanent data"}, {1452, "23000", "permanent data"}, {3819, "HY000", "permanent data"},
		{4025, "23000", "permanent data"}, {1406, "22001", "permanent data"}, {1366, "22007", "permanent data"}, {1690, "22003", "permanent data"}, {1644, "45000", "permanent data"},
		{1146, "42S02", "permanent schema"}, {1054, "42S22", "permanent schema"}, {1064, "42000", "permanent schema"},
		{1142, "42000", "systemic forbidden"}, {1044, "42000", "systemic forbidden"}, {1045, "28000", "systemic unauthorized"}, {1049, "42000", "systemic no-database"},
		{9999, "", "transient unavailable"},
	}
	for _, tt := range numbers {
		if got := connector.JudgeMySQL(tt.number, tt.state); got.Class.String()+" "+got.Code != tt.want {
			t.Errorf("mysql %d: got %s %s, want %s", tt.number, got.Class, got.Code, tt.want)
		}
	}
	var none *signup.Error
	if got := connector.JudgePostgres(""); got != none {
		t.Errorf("no code: got %v", got)
	}
}
