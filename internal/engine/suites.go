package engine

import "github.com/dtlsserver/dtlsserver/internal/suite"

// Suites returns the cipher suites with the numbers, in their order, and the
// numbers that name none.
func Suites(ids []uint16) (suites []*suite.Suite, unknown []uint16) {
	for _, id := range ids {
		if s := suite.ByID(id); s != nil {
			suites = append(suites, s)
		} else {
			unknown = append(unknown, id)
		}
	}
	return suites, unknown
}

// DefaultSuites returns the numbers of all cipher suites in order of
// preference.
func DefaultSuites() []uint16 {
	var ids []uint16
	for _, s := range suite.All() {
		ids = append(ids, s.ID)
	}
	return ids
}
