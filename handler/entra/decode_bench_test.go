package entra

import (
	"flag"
	"fmt"
	"testing"

	kjson "github.com/microsoft/kiota-serialization-json-go"
	"github.com/microsoftgraph/msgraph-sdk-go/models"

	"signup-sync/handler/bench"
)

var measureDecode = flag.Bool("decode", false, "measure the decoding of a page beside the Graph SDK's own parser, as 'make bench' does")

// decodeWithSDK is the SDK's way from a page to its models.
func decodeWithSDK(body []byte) (int, error) {
	node, err := kjson.NewJsonParseNodeFactory().GetRootParseNode("application/json", body)
	if err != nil {
		return 0, err
	}
	v, err := node.GetObjectValue(models.CreateDirectoryAuditCollectionResponseFromDiscriminatorValue)
	if err != nil {
		return 0, err
	}
	return len(v.(models.DirectoryAuditCollectionResponseable).GetValue()), nil
}

// TestDecode compares a page's way to events with the SDK's own model parser on the same bytes. Without -decode it
// compares the allocations alone, which every machine counts alike.
func TestDecode(t *testing.T) {
	const records = 1000
	body := largePage(records)
	ways := []struct {
		name   string
		decode func([]byte) (int, error)
	}{{"ours", decodeLargePage}, {"SDK", decodeWithSDK}}
	p := bench.Part{Name: "decode", Title: "Decoding a page of the audit log", Command: "make bench PARTS=decode"}
	var allocations, seconds, bytes [2]float64
	for i, way := range ways {
		allocations[i] = testing.AllocsPerRun(2, func() {
			if n, err := way.decode(body); n != records || err != nil {
				t.Fatal(way.name, n, err)
			}
		}) / float64(records)
		if !*measureDecode {
			continue
		}
		r := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if n, err := way.decode(body); n != records || err != nil {
					b.Fatal(n, err)
				}
			}
		})
		seconds[i], bytes[i] = r.T.Seconds()/float64(r.N), float64(r.AllocedBytesPerOp())
		p.Figures = append(p.Figures, bench.Figure{Name: way.name + "/time", Value: seconds[i] * 1000, Unit: "ms"},
			bench.Figure{Name: way.name + "/allocated", Value: bytes[i] / 1e6, Unit: "MB"})
	}
	p.Figures = append(p.Figures, bench.Figure{Name: "allocations/ours", Value: allocations[0], Unit: "a record", Goal: "<= 20", Steady: true},
		bench.Figure{Name: "allocations/SDK to ours", Value: allocations[1] / allocations[0], Goal: ">= 20", Steady: true})
	p.Text = fmt.Sprintf("A page of %d records of some 2.3 KB each, decoded into the events that a detector needs, beside the Graph SDK's parser into its models, "+
		"on one core: %.1f ms and %.2f MB allocated, against %.0f ms and %.1f MB. So the SDK's parser is not used ([design](design.md#graph)).",
		records, seconds[0]*1000, bytes[0]/1e6, seconds[1]*1000, bytes[1]/1e6)
	bench.Hold(t, p)
	if *measureDecode {
		if err := p.Write(); err != nil {
			t.Error(err)
		}
	}
}
