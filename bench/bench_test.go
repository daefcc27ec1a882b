package bench

import (
	"testing"

	"evenkeel/internal/vec"
)

func benchmark(b *testing.B, do func(s *Step) func()) {
	for _, shape := range Shapes() {
		for _, kernel := range vec.Kernels() {
			b.Run(shape.Name+"/"+kernel, func(b *testing.B) {
				defer vec.Use("auto")
				if err := vec.Use(kernel); err != nil {
					b.Fatal(err)
				}
				s, err := NewStep(shape, shape.Draw(1))
				if err != nil {
					b.Fatal(err)
				}
				run := do(s)
				run()
				b.ReportAllocs()
				for b.Loop() {
					run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(shape.Tokens), "ns/token")
			})
		}
	}
}

func BenchmarkRoute(b *testing.B) { benchmark(b, func(s *Step) func() { return s.Route }) }
func BenchmarkTrain(b *testing.B) { benchmark(b, func(s *Step) func() { return s.Train }) }
