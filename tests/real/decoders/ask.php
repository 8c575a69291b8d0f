<?php
// Answers each line of JSON on stdin with one on stdout: what the decoder makes of it.
require $argv[1];

while (($line = fgets(STDIN)) !== false) {
    $asked = json_decode($line, true, flags: JSON_THROW_ON_ERROR);
    $a = $asked["arguments"];
    try {
        $answer = match ($asked["ask"]) {
            "text" => text(hex2bin($a[0])),
            "items" => items(hex2bin($a[0])),
            "claims" => claims(hex2bin($a[0])),
            "assertion" => assertion(...$a),
            "signed" => signed($a[0], hex2bin($a[1]), array_map("hex2bin", $a[2]), hex2bin($a[3]), $a[4]),
        };
        $line = ["answer" => $answer];
    } catch (Throwable $error) {
        $line = ["refused" => get_class($error)];
    }
    echo json_encode($line, JSON_THROW_ON_ERROR), "\n";
    flush();
}
