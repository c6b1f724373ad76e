// Package pskflag reads the values of the examples' -psk flags.
//
// Keys on a command line can be seen by everybody who can list the processes of
// the machine. That does for trying things out; a service reads them from a
// file or a database.
package pskflag

import (
	"encoding/hex"
	"errors"
	"strings"
)

// Default is the identity and the key that the examples have in common.
const Default = "Client_identity=1a2b3c4d5e6f"

// Parse splits IDENTITY=HEXKEY. The identity may contain '=' and may be empty.
// No error shows any part of the value, for it may be a part of the key.
func Parse(value string) (identity string, key []byte, err error) {
	i := strings.LastIndexByte(value, '=')
	if i < 0 {
		return "", nil, errors.New("not of the form IDENTITY=HEXKEY")
	}
	key, err = hex.DecodeString(value[i+1:])
	if err != nil {
		return "", nil, errors.New("the key after the last '=' is not hexadecimal")
	}
	if len(key) == 0 {
		return "", nil, errors.New("no key after the last '='")
	}
	return value[:i], key, nil
}
