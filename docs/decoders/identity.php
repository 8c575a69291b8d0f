<?php
// Reads what jwt-sidecar sends. Header values are bytes, as PHP has them.

function text(string $value): string {
    return rawurldecode($value);
}

function items(string $value): array {
    return array_map("rawurldecode", explode(",", $value));
}

function base64url(string $value): string {
    return base64_decode(strtr($value, "-_", "+/"));
}

function claims(string $value): array {
    return json_decode(base64url($value), true, flags: JSON_THROW_ON_ERROR);
}

function assertion(string $token, array $keySet, string $issuer, string $audience, ?int $now = null): array {
    [$header, $payload, $signature] = explode(".", $token);
    ["alg" => $alg, "kid" => $kid] = claims($header);
    $x = array_column($keySet["keys"], "x", "kid")[$kid] ?? throw new Exception("unknown key: fetch the key set again");
    $message = "$header.$payload";
    $good = $alg === "EdDSA" && sodium_crypto_sign_verify_detached(base64url($signature), $message, base64url($x));
    $said = claims($payload);
    $meant = $said["iss"] === $issuer && $said["aud"] === $audience && $said["exp"] > ($now ?? time());
    return $good && $meant ? $said : throw new Exception("not a good assertion");
}

function signed(string $method, string $target, array $headers, string $secret, ?int $now = null): bool {
    if (!preg_match('/^t=([0-9]{1,12}),v1=([0-9a-f]{64})\z/', $headers["x-jwt-signature"] ?? "", $match)) {
        return false;
    }
    $names = preg_grep('/^x-jwt-(?!signature\z)/', array_keys($headers));
    sort($names, SORT_STRING);
    $lines = implode(array_map(fn($name) => "$name:$headers[$name]\n", $names));
    $mac = hash_hmac("sha256", "$match[1]\n$method\n$target\n$lines", $secret);
    return abs(($now ?? time()) - (int) $match[1]) <= 30 && hash_equals($mac, $match[2]);
}
