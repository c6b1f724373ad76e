// Package dtlsserver is a DTLS 1.2 server that Go services embed: one UDP
// socket, many peers, four kinds of event, one hook for pre-shared keys, and a
// cookie exchange that keeps nothing about anybody who has not proven their
// address.
package dtlsserver
