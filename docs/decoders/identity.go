// Package identity reads what jwt-sidecar sends.
package identity

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

func Text(value string) (string, error) {
	return url.PathUnescape(value)
}

func Items(value string) ([]string, error) {
	items := strings.Split(value, ",")
	for i, item := range items {
		text, err := Text(item)
		if err != nil {
			return nil, err
		}
		items[i] = text
	}
	return items, nil
}

func Claims(value string, into any) error {
	decoded, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(decoded, into)
}

// Assertion returns the claims of a good assertion. keys is the key set: kid -> x, decoded.
func Assertion(token string, keys map[string]ed25519.PublicKey, issuer, audience string, now time.Time) (map[string]any, error) {
	parts := strings.Split(token, ".")
	var header struct{ Alg, Kid string }
	if len(parts) != 3 || Claims(parts[0], &header) != nil || header.Alg != "EdDSA" {
		return nil, errors.New("not a good assertion")
	}
	key, known := keys[header.Kid]
	if !known {
		return nil, errors.New("unknown key: fetch the key set again")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), signature) {
		return nil, errors.New("not a good assertion")
	}
	var said map[string]any
	if err := Claims(parts[1], &said); err != nil {
		return nil, err
	}
	exp, _ := said["exp"].(float64)
	if said["iss"] != issuer || said["aud"] != audience || int64(exp) <= now.Unix() {
		return nil, errors.New("not a good assertion")
	}
	return said, nil
}

var stamp = regexp.MustCompile(`^t=([0-9]{1,12}),v1=([0-9a-f]{64})$`)

// Signed says whether the sidecar sent this request within the last 30 seconds.
func Signed(r *http.Request, secret []byte, now time.Time) bool {
	match := stamp.FindStringSubmatch(r.Header.Get("X-Jwt-Signature"))
	if match == nil {
		return false
	}
	names := []string{}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Jwt-") && name != "X-Jwt-Signature" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(match[1] + "\n" + r.Method + "\n" + r.RequestURI + "\n"))
	for _, name := range names {
		mac.Write([]byte(strings.ToLower(name) + ":" + r.Header.Get(name) + "\n"))
	}
	given, _ := hex.DecodeString(match[2])
	t, _ := strconv.ParseInt(match[1], 10, 64)
	age := now.Unix() - t
	return -30 <= age && age <= 30 && hmac.Equal(mac.Sum(nil), given)
}
