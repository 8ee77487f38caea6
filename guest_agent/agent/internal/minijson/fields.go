package minijson

import "errors"

// The field readers give the zero value for a field that is absent or null, and an error for
// one of another type.

// Text is the string field key.
func (o Object) Text(key string) (string, error) { return field[string](o, key) }

// Number is the number field key.
func (o Object) Number(key string) (float64, error) { return field[float64](o, key) }

// Bool is the field key, true or false.
func (o Object) Bool(key string) (bool, error) { return field[bool](o, key) }

// Object is the object field key; nil when absent.
func (o Object) Object(key string) (Object, error) { return field[Object](o, key) }

// Texts is the field key, an array of strings.
func (o Object) Texts(key string) ([]string, error) {
	array, err := field[Array](o, key)
	texts := make([]string, 0, len(array))
	for _, value := range array {
		text, ok := value.(string)
		if !ok {
			return nil, errors.New("the field " + key + " must hold only strings")
		}
		texts = append(texts, text)
	}
	return texts, err
}

func field[T any](o Object, key string) (T, error) {
	var zero T
	raw, there := o[key]
	if !there || raw == nil {
		return zero, nil
	}
	value, ok := raw.(T)
	if !ok {
		return zero, errors.New("the field " + key + " has the wrong type")
	}
	return value, nil
}
