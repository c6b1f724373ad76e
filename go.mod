module github.com/dtlsserver/dtlsserver

go 1.26.0

require golang.org/x/crypto v0.58.0

require (
	github.com/pion/dtls/v2 v2.2.12
	github.com/pion/logging v0.2.4
	github.com/pion/transport/v2 v2.2.10
	golang.org/x/net v0.60.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/pion/transport/v3 v3.1.1 // indirect
	github.com/stretchr/testify v1.11.1 // indirect
)
