package spillovertest

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strconv"
)

const defaultDimensions = 8

// mostDimensions is the limit of dimensions. It is more than any model has.
const mostDimensions = 8192

// embeddings returns a body with one vector for each input. Equal inputs get equal
// vectors.
func embeddings(c *call) []byte {
	n := int(min(c.Dimensions, mostDimensions))
	if n <= 0 {
		n = defaultDimensions
	}
	b := []byte(`{"object":"list","data":[`)
	for i, input := range inputs(c.Input) {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"object":"embedding","index":%d,"embedding":`, i)
		v := vector(input, n)
		if c.EncodingFormat == "base64" {
			b = appendBase64(b, v)
		} else {
			b = appendFloats(b, v)
		}
		b = append(b, '}')
	}
	return fmt.Appendf(b, `],"model":%s,"usage":{"prompt_tokens":%d,"total_tokens":%[2]d}}`, quote(c.deployment), c.prompt)
}

// inputs returns the texts to embed: one text, or the elements of an array. An array of
// numbers is one text, as tokens.
func inputs(v any) []any {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return []any{v}
	}
	if _, number := list[0].(float64); number {
		return []any{v}
	}
	return list
}

// vector returns a vector of length one whose direction depends only on the input.
func vector(input any, n int) []float32 {
	h := fnv.New64a()
	fmt.Fprint(h, input)
	rng := rand.New(rand.NewPCG(h.Sum64(), uint64(n)))
	v := make([]float32, n)
	var square float64
	for i := range v {
		x := rng.NormFloat64()
		v[i], square = float32(x), square+x*x
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(square))
	}
	return v
}

func appendFloats(b []byte, v []float32) []byte {
	b = append(b, '[')
	for i, x := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(x), 'g', -1, 32)
	}
	return append(b, ']')
}

// appendBase64 appends the vector as the API encodes it: little-endian floats.
func appendBase64(b []byte, v []float32) []byte {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, raw)
	return append(b, '"')
}
