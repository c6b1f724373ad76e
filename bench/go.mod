module github.com/dtlsserver/dtlsserver/bench

go 1.26.0

require (
	github.com/dtlsserver/dtlsserver v0.0.0
	golang.org/x/crypto v0.58.0
	golang.org/x/sys v0.49.0
)

replace github.com/dtlsserver/dtlsserver => ../
