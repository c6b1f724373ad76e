//go:build !linux

package udpio

var systemKinds = []kind{{"native", New}}
