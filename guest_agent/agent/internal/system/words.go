package system

import (
	"os"
	"strings"
)

// Complain writes a line on the console. The standard library's fmt would make the agent a tenth
// larger.
func Complain(words ...string) {
	os.Stderr.WriteString("nexus-agent: " + strings.Join(words, ": ") + "\n")
}

// Hex is the bytes in hexadecimal digits.
func Hex(data []byte) string {
	const digits = "0123456789abcdef"
	text := make([]byte, 0, 2*len(data))
	for _, b := range data {
		text = append(text, digits[b>>4], digits[b&15])
	}
	return string(text)
}
